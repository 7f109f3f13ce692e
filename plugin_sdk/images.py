"""Contracts of images."""

from kernel.contracts.images import *
