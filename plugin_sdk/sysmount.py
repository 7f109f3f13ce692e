"""mount(2) and umount2(2)."""

from kernel.sysmount import *
