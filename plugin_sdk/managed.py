"""Contracts of managed plugins."""

from kernel.contracts.managed import *
