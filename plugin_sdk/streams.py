"""Byte streams between threads, and between a thread and the event loop."""

from kernel.streams import *
