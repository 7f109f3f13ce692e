"""Serves the driver: `python -m volume_python`."""

from pathlib import Path

from plugin_sdk import serve
from volume_python.driver import VolumePython

DATA = Path("/data")
"""The `propagatedMount` of config.json: it outlives upgrades, and containers find the volumes there."""


def main() -> None:
    """Until SIGTERM."""
    serve(VolumePython(DATA / "volumes"), folder=DATA)


if __name__ == "__main__":
    main()
