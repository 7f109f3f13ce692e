"""Compressed streams."""

from kernel.compression import *
