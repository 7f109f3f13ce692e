"""Hook specifications, one module per subsystem. Each docstring is the contract of its hook."""

from kernel.hookspecs import api, lifecycle, network, workload

MODULES = (lifecycle, workload, network, api)
"""All modules that hold specifications."""
