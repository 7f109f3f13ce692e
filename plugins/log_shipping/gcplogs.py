"""The driver "gcplogs": Google Cloud Logging, through google-cloud-logging (the extra `gcplogs`).

Sources: the library's documentation; moby, daemon/logger/gcplogs, for options and the entry's shape.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from plugin_sdk import InvalidParameter, Unavailable
from plugin_sdk.logbatch import Batch
from plugin_sdk.logoptions import ATTRIBUTES, boolean_option, extra_attributes
from plugin_sdk.logs import LogEntry, LogInfo, LogSink
from plugin_sdk.times import format_ns

from .cloud import Calls, require
from .shipping import ShippingDriver, text

LOG_NAME = "gcplogs-docker-driver"
GROUP = 1000
"""Entries of one call."""
CALL_TIMEOUT = 30.0

_META = {"gcp-meta-zone": "zone", "gcp-meta-name": "name", "gcp-meta-id": "id"}

Row = dict[str, Any]


def make_client(project: str) -> Any:
    """The library's client for a project, with the default credentials. Blocking."""
    import google.cloud.logging as cloud_logging

    # Without gRPC: a connection that is kept by threads of its own for each container is too much.
    return cloud_logging.Client(project=project or None, _use_grpc=False)


class GcpLogsDriver(ShippingDriver):
    """See the module.

    Args:
        make: makes the library's client for a project.
    """

    name = "gcplogs"
    options = ("gcp-project", "gcp-log-cmd", *_META, *ATTRIBUTES)
    unknown = '"{{}}" is not a valid option for the {name} driver'

    def __init__(self, make: Callable[[str], Any] = make_client) -> None:
        super().__init__()
        self._make = make
        self._calls = Calls("gcplogs")
        self._rows: dict[str, Batch[Row]] = {}

    def check(self, options: Mapping[str, str]) -> None:
        """See `ShippingDriver.check`."""
        boolean_option(options, "gcp-log-cmd")
        require("google.cloud.logging", self.name)

    async def open(self, info: LogInfo) -> LogSink:
        """See `LogDriver.open`. What Google refuses, refuses the container's start."""
        from google.auth.exceptions import DefaultCredentialsError

        try:
            client = await self._calls.run(self._make, info.options.get("gcp-project", ""))
        except (DefaultCredentialsError, OSError) as error:
            raise InvalidParameter(
                f"No project was specified and couldn't read project from the metadata server, or there are no "
                f"credentials: {error}"
            ) from None
        encode = formatter(info)
        batch = self._rows.setdefault(info.container.Id, Batch(encode))
        batch.encode = encode
        return GcpLogsSink(self._calls, client, resource(info.options), batch)

    async def remove(self, info: LogInfo) -> None:
        """See `LogDriver.remove`."""
        self._rows.pop(info.container.Id, None)

    def close(self) -> None:
        """Let go of the threads."""
        self._calls.close()


def instance(options: Mapping[str, str]) -> dict[str, str]:
    """The machine, as far as options tell."""
    return {field: options[name] for name, field in _META.items() if options.get(name)}


def resource(options: Mapping[str, str]) -> Row | None:
    """The monitored resource of all entries; None for the library's own."""
    machine = instance(options)
    if not machine:
        return None
    labels = {"instance_id": machine.get("id", ""), "zone": machine.get("zone", "")}
    return {"type": "gce_instance", "labels": labels}


def formatter(info: LogInfo) -> Callable[[Sequence[LogEntry]], list[Row]]:
    """What makes rows of a container's entries."""
    container = info.container
    about: Row = {
        "name": f"/{container.Name}",
        "id": container.Id,
        "imageName": container.ImageRef,
        "imageId": container.ImageID,
        "created": container.Created,
    }
    if boolean_option(info.options, "gcp-log-cmd"):
        about["command"] = " ".join([container.Path, *container.Args])
    if attributes := extra_attributes(info):
        about["metadata"] = attributes
    common: Row = {"container": about}
    if machine := instance(info.options):
        common["instance"] = machine

    def encode(entries: Sequence[LogEntry]) -> list[Row]:
        return [
            {
                "info": {**common, "message": text(entry.line)},
                "timestamp": datetime.fromtimestamp(entry.time_ns // 10**9, UTC).replace(
                    microsecond=entry.time_ns % 10**9 // 1000
                ),
                "severity": "ERROR" if entry.stream == 2 else "INFO",
                # The service drops what has the same and comes again.
                "insert_id": f"{format_ns(entry.time_ns)}-{secrets.token_hex(8)}",
            }
            for entry in entries
        ]

    return encode


class GcpLogsSink:
    """Fulfils `plugin_sdk.logs.LogSink`."""

    def __init__(self, calls: Calls, client: Any, where: Row | None, batch: Batch[Row]) -> None:
        self._calls = calls
        self._client = client
        self._where = where
        self._batch = batch

    async def write(self, entries: Sequence[LogEntry]) -> None:
        """See `LogSink.write`. Raises Unavailable; what was sent is not sent again."""
        self._batch.offer(entries)
        while group := self._batch.waiting[:GROUP]:
            await self._calls.run(self._put, group)
            self._batch.done += len(group)
        self._batch.clear()

    def _put(self, group: Sequence[Row]) -> None:
        """Blocks."""
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.logging_v2.resource import Resource

        where = Resource(**self._where) if self._where is not None else None
        batch = self._client.logger(LOG_NAME).batch()
        for row in group:
            fields = {name: value for name, value in row.items() if name != "info"}
            batch.log_struct(row["info"], **fields, **({"resource": where} if where is not None else {}))
        try:
            batch.commit()
        except (GoogleAPIError, GoogleAuthError, OSError, ValueError) as error:
            raise Unavailable(f"gcplogs: {error}") from None

    async def close(self) -> None:
        """See `LogSink.close`."""
        await self._calls.run(self._client.close)
