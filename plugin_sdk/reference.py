"""Image and plugin references."""

from kernel.reference import *
