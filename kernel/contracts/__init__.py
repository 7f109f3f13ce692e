"""Typed protocols and data classes that hooks, drivers and services exchange; one module per subsystem."""
