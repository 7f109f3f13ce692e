"""Contracts of storage drivers."""

from kernel.contracts.storage import *
