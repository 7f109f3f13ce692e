"""Built-in plugins, one subsystem each. They import plugin_sdk and third-party libraries, nothing else."""
