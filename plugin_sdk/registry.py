"""Contracts of registries."""

from kernel.contracts.registry import *
