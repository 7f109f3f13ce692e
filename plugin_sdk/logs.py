"""Contracts of log drivers."""

from kernel.contracts.logs import *
