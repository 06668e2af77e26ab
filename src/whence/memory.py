"""How a process of our own deals with large blocks of memory."""

from __future__ import annotations

import ctypes
import os

VARIABLE = "WHENCE_KEEP_MEMORY"
# mallopt's numbers in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process keep what it has freed, instead of handing it back and faulting it in again page by page.

    A volume's worth of memory is asked for at every step of a training or a registration; where it comes
    fresh from the system each time, that costs up to a third of the step. The price is that a process stays as
    large as it once was. For the commands, which own their process; importing does nothing. Only
    glibc is told; ``WHENCE_KEEP_MEMORY=0`` leaves it alone. Returns whether it was told.
    """
    if os.environ.get(VARIABLE, "") == "0" or os.name != "posix":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return bool(libc.mallopt(_MMAP_MAX, 0) and libc.mallopt(_TRIM_THRESHOLD, -1))
