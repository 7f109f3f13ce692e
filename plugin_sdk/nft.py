"""nftables: several commands as one atomic transaction. Blocking: call it in worker threads.

libnftables is used in this process when it is there (0.1 ms for a small change); else the program `nft` is run (3 to 7 ms).
"""

from __future__ import annotations

import contextlib
import ctypes
import secrets
import threading
from collections.abc import Iterator

from kernel.errors import EngineError
from plugin_sdk.aio import run_blocking

AUTHOR = f"nft-{secrets.token_hex(5)}"
"""Name of this process's transactions in nftables' notifications (`NFTA_GEN_PROC_NAME`): the thread's name while it makes
one. Thread IDs would not do: the kernel tells those of its first PID namespace."""

_PR_SET_NAME, _PR_GET_NAME = 15, 16

_lock = threading.Lock()
_library: ctypes.CDLL | None = None
_tried = False


class NftError(EngineError):
    """nft refused the transaction; nothing of it was done. The text is nft's own."""


def nft(commands: str, *, timeout: float = 20.0) -> str:
    """Carry out the commands, all or none, in the calling thread's network namespace; gives what `list` commands print.

    Raises:
        NftError: refused.
        NotSupported: this machine has neither libnftables nor nft.
    """
    library = _load()
    if library is None:
        done = run_blocking(["nft", "-f", "-"], input=commands.encode(), timeout=timeout)
        if done.code:
            raise NftError(done.message)
        return done.stdout.decode(errors="replace")
    # A context belongs to the namespace in which it was made; making one costs 0.05 ms.
    with _lock, _signed():
        context = library.nft_ctx_new(0)
        if not context:
            raise NftError("libnftables cannot be used: no context")
        try:
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            if library.nft_run_cmd_from_buffer(context, commands.encode()):
                raise NftError(_text(library.nft_ctx_get_error_buffer(context)) or "nft failed without a reason")
            return _text(library.nft_ctx_get_output_buffer(context))
        finally:
            library.nft_ctx_free(context)


@contextlib.contextmanager
def _signed() -> Iterator[None]:
    libc = ctypes.CDLL(None)
    before = ctypes.create_string_buffer(16)
    libc.prctl(_PR_GET_NAME, before)
    libc.prctl(_PR_SET_NAME, AUTHOR.encode())
    try:
        yield
    finally:
        libc.prctl(_PR_SET_NAME, before)


def _load() -> ctypes.CDLL | None:
    global _library, _tried  # noqa: PLW0603 - loaded once per process
    if not _tried:
        with _lock:
            if not _tried:
                try:
                    _library = _declare(ctypes.CDLL("libnftables.so.1"))
                except (OSError, AttributeError):
                    _library = None
                _tried = True
    return _library


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace").strip()
