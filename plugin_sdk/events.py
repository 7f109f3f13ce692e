"""Events and their bus."""

from kernel.contracts.events import *
