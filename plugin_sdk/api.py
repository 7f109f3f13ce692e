"""Contracts of the API server."""

from kernel.contracts.api import *
