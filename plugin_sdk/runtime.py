"""Contracts of runtimes."""

from kernel.contracts.runtime import *
