"""The durable store: SQLite in WAL mode, typed collections, migrations."""

from kernel.state.store import Store

__all__ = ["Store"]
