"""Paths inside a root file system that somebody else fills."""

from kernel.rootfs import *
