"""Contracts of volume drivers."""

from kernel.contracts.volumes import *
