"""What an author of plugins tests with.

    plugin_sdk.testing.kits     a conformance kit for every driver contract, and for authz and metrics plugins
    plugin_sdk.testing.kernel   a kernel in the test's own process, with chosen plugins
    plugin_sdk.testing.engine   a real engine to throw away
    plugin_sdk.testing.bundle   checks of a managed plugin's folder (config.json and rootfs)

Where the engine is installed, pytest knows `plugin_sdk.testing.pytest_plugin` by itself: `pytest --engine-driver=...` and the
fixtures `throwaway_engine` and `engine_kernel`. The kits need no pytest: `engine plugin verify` runs them in the daemon.
"""
