"""User namespaces: making one, and acting on files as its root."""

from kernel.userns import *
