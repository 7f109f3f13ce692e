"""What limits the size of writable layers: one small contract, a module for each way to fulfil it."""

from .backend import QuotaBackend
from .choice import Quotas

__all__ = ["QuotaBackend", "Quotas"]
