"""The driver "awslogs": Amazon CloudWatch Logs, through boto3 (the extra `awslogs`).

Sources: the CloudWatch Logs API reference, PutLogEvents, for its bounds; moby, daemon/logger/awslogs, for the options.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from plugin_sdk import InvalidParameter, Unavailable
from plugin_sdk.logbatch import Batch
from plugin_sdk.logoptions import ATTRIBUTES, boolean_option, log_tag
from plugin_sdk.logs import LogEntry, LogInfo, LogSink

from .cloud import Calls, require
from .links import split
from .shipping import ShippingDriver, text

EVENT_OVERHEAD = 26
"""Bytes that the service counts for each event beside its text."""
EVENT_LIMIT = (256 << 10) - EVENT_OVERHEAD
PUT_LIMIT = 1 << 20
PUT_EVENTS = 10_000
PUT_SPAN_MS = 24 * 3600 * 1000
"""Events of one call lie within a day."""

_GROUP, _STREAM, _FORMAT = "awslogs-group", "awslogs-stream", "awslogs-format"
_DATETIME, _PATTERN = "awslogs-datetime-format", "awslogs-multiline-pattern"
_BOOLEANS = ("awslogs-create-group", "awslogs-create-stream")
_COUNTS = ("awslogs-force-flush-interval-seconds", "awslogs-max-buffered-events")
_EMF = "json/emf"
# strftime's fields as patterns; %L is Docker's own, milliseconds.
_FIELDS = {
    "%a": r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)",
    "%A": r"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)",
    "%w": r"[0-6]",
    "%d": r"(?:0[1-9]|[12][0-9]|3[01])",
    "%b": r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)",
    "%B": r"(?:January|February|March|April|May|June|July|August|September|October|November|December)",
    "%m": r"(?:0[1-9]|1[0-2])",
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%H": r"(?:[01][0-9]|2[0-3])",
    "%I": r"(?:0[0-9]|1[0-2])",
    "%p": r"[AP]M",
    "%M": r"[0-5][0-9]",
    "%S": r"[0-5][0-9]",
    "%f": r"\d{6}",
    "%z": r"[+-]\d{4}",
    "%Z": r"[A-Z]{1,4}T",
    "%j": r"(?:00[1-9]|0[1-9][0-9]|[12][0-9][0-9]|3[0-5][0-9]|36[0-6])",
    "%L": r"\.\d{3}",
    "%%": "%",
}

log = logging.getLogger("engine.log_shipping")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: milliseconds since the epoch, and its text."""

    time_ms: int
    message: str

    @property
    def size(self) -> int:
        """Bytes as the service counts them."""
        return len(self.message.encode()) + EVENT_OVERHEAD


class AwsLogsDriver(ShippingDriver):
    """See the module."""

    name = "awslogs"
    options = (
        _GROUP, _STREAM, _FORMAT, _DATETIME, _PATTERN, *_BOOLEANS, *_COUNTS, "awslogs-region", "awslogs-endpoint",
        "awslogs-credentials-endpoint", "tag", *ATTRIBUTES,
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._calls = Calls("awslogs")
        self._events: dict[str, Batch[Event | None]] = {}

    def check(self, options: Mapping[str, str]) -> None:
        """See `ShippingDriver.check`."""
        if not options.get(_GROUP):
            raise InvalidParameter("must specify a value for log opt 'awslogs-group'")
        for name in _BOOLEANS:
            try:
                boolean_option(options, name)
            except InvalidParameter as error:
                raise InvalidParameter(f"must specify valid value for log opt '{name}': {error}") from None
        for name in _COUNTS:
            value = options.get(name, "1")
            if not (value.isascii() and value.isdigit() and int(value)):
                raise InvalidParameter(f"must specify a positive integer for log opt '{name}': {value}")
        if _DATETIME in options and _PATTERN in options:
            raise InvalidParameter(f"you cannot configure log opt '{_DATETIME}' and '{_PATTERN}' at the same time")
        if _FORMAT in options:
            if options[_FORMAT] != _EMF:
                raise InvalidParameter(f"unsupported log format '{options[_FORMAT]}'")
            if _DATETIME in options or _PATTERN in options:
                raise InvalidParameter(
                    f"you cannot configure log opt '{_DATETIME}' or '{_PATTERN}' when log opt '{_FORMAT}' is set to "
                    f"'{_EMF}'"
                )
        begin_pattern(options)
        endpoint = options.get("awslogs-endpoint", "")
        if endpoint and (split(endpoint).scheme not in ("http", "https") or not split(endpoint).hostname):
            raise InvalidParameter(f"awslogs-endpoint: want for example https://host:port, got {endpoint}")
        require("botocore", self.name)

    async def open(self, info: LogInfo) -> LogSink:
        """See `LogDriver.open`. The log stream is made here. What AWS refuses, refuses the container's start."""
        options = info.options
        require("botocore", self.name)
        where = {
            "logGroupName": options[_GROUP],
            "logStreamName": options.get(_STREAM) or log_tag(info, "{{.FullID}}"),
        }
        client = await self._calls.run(make_client, options)
        create = partial(_create, client, options, where)
        await self._calls.run(create)
        pattern = begin_pattern(options)
        batch = self._events.setdefault(info.container.Id, Batch(_encode))
        return AwsLogsSink(self._calls, client, where, create, batch, pattern)

    async def remove(self, info: LogInfo) -> None:
        """See `LogDriver.remove`."""
        self._events.pop(info.container.Id, None)

    def close(self) -> None:
        """Let go of the threads."""
        self._calls.close()


def begin_pattern(options: Mapping[str, str]) -> re.Pattern[bytes] | None:
    """What a line must hold to begin an event; None: each line is one. Raises InvalidParameter."""
    pattern = options.get(_PATTERN, "")
    if options.get(_DATETIME):
        pattern = re.sub(r"%.", lambda found: _FIELDS.get(found[0], ""), options[_DATETIME])
    if not pattern:
        return None
    try:
        return re.compile(pattern.encode())
    except re.error as error:
        raise InvalidParameter(f'awslogs could not parse multiline pattern key "{pattern}": {error}') from None


def make_client(options: Mapping[str, str]) -> Any:
    """The library's client. Blocking. Raises InvalidParameter without a region."""
    import botocore.session
    from botocore.config import Config
    from botocore.credentials import ContainerProvider, CredentialResolver
    from botocore.exceptions import BotoCoreError
    from botocore.utils import InstanceMetadataRegionFetcher

    session = botocore.session.get_session()
    path = options.get("awslogs-credentials-endpoint")
    if path:
        provider = ContainerProvider(environ={"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": path})
        session.register_component("credential_provider", CredentialResolver([provider]))
    region = options.get("awslogs-region") or os.environ.get("AWS_REGION")
    if not region:
        region = InstanceMetadataRegionFetcher(timeout=2, num_attempts=1).retrieve_region()
    if not region:
        raise InvalidParameter("Cannot determine region for awslogs driver")
    settings = Config(connect_timeout=5, read_timeout=15, retries={"total_max_attempts": 1})
    try:
        client = session.create_client(
            "logs", region_name=region, endpoint_url=options.get("awslogs-endpoint") or None, config=settings
        )
    except (BotoCoreError, ValueError) as error:
        raise InvalidParameter(f"awslogs: {error}") from None
    if options.get(_FORMAT) == _EMF:
        client.meta.events.register("before-call.cloudwatch-logs.PutLogEvents", _emf_header)
    return client


def _emf_header(params: dict[str, Any], **_: Any) -> None:
    params["headers"]["x-amzn-logs-format"] = _EMF


def _create(client: Any, options: Mapping[str, str], where: Mapping[str, str]) -> None:
    """Blocks. Raises InvalidParameter when the service refuses, or Unavailable."""
    group = where["logGroupName"]
    if not boolean_option(options, "awslogs-create-stream", True):
        return
    try:
        code = _call(client.create_log_stream, **where)
        if code == "ResourceNotFoundException" and boolean_option(options, "awslogs-create-group"):
            _call(client.create_log_group, logGroupName=group)
            code = _call(client.create_log_stream, **where)
    except _Refused as refused:
        raise InvalidParameter(f"failed to create Cloudwatch log stream: {refused}") from None
    if code == "ResourceNotFoundException":
        raise InvalidParameter(
            f"failed to create Cloudwatch log stream: the log group {group} does not exist; "
            "create it, or give awslogs-create-group=true"
        )


class _Refused(Exception):
    """The service understood, and will not."""


_FOR_NOW = ("ThrottlingException", "ServiceUnavailableException", "InternalFailure", "OperationAbortedException")
_FINE = ("ResourceAlreadyExistsException", "DataAlreadyAcceptedException", "ResourceNotFoundException")


def _call(function: Any, **arguments: Any) -> str:
    """The code of what stands in the way, if the caller knows what to do; else "".

    Raises:
        Unavailable: another time it may work.
        _Refused: it will not.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        answer = function(**arguments)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _FINE:
            return str(code)
        if code in _FOR_NOW or status >= 500:
            raise Unavailable(f"awslogs: {error}") from None
        raise _Refused(str(error)) from None
    except NoCredentialsError as error:
        raise _Refused(str(error)) from None
    except (BotoCoreError, OSError) as error:
        raise Unavailable(f"awslogs: {error}") from None
    rejected = answer.get("rejectedLogEventsInfo")
    if rejected:
        log.warning("awslogs: %s: events were dropped, the service does not take them: %s", arguments, rejected)
    return ""


def _encode(entries: Sequence[LogEntry]) -> list[Event | None]:
    """None for an empty line, which the service refuses."""
    return [Event(entry.time_ns // 10**6, text(entry.line)) if entry.line else None for entry in entries]


class AwsLogsSink:
    """Fulfils `plugin_sdk.logs.LogSink`."""

    def __init__(
        self,
        calls: Calls,
        client: Any,
        where: Mapping[str, str],
        create: Callable[[], None],
        batch: Batch[Event | None],
        begin: re.Pattern[bytes] | None,
    ) -> None:
        self._calls = calls
        self._client = client
        self._where = where
        self._create = create
        self._batch = batch
        self._begin = begin

    async def write(self, entries: Sequence[LogEntry]) -> None:
        """See `LogSink.write`. Raises Unavailable; what was sent is not sent again."""
        self._batch.offer(entries)
        while self._batch.waiting:
            events, taken = gather(self._batch.waiting, self._begin)
            if events:
                await self._calls.run(self._put, events)
            self._batch.done += taken
        self._batch.clear()

    def _put(self, events: Sequence[Event]) -> None:
        """Blocks."""
        rows = [{"timestamp": event.time_ms, "message": event.message} for event in events]
        try:
            code = _call(self._client.put_log_events, **self._where, logEvents=rows)
        except _Refused as refused:
            raise Unavailable(f"awslogs: {refused}") from None
        if code == "ResourceNotFoundException":
            # Somebody removed it.
            self._create()
            raise Unavailable(f"awslogs: log group or stream was not there: {self._where}")

    async def close(self) -> None:
        """See `LogSink.close`."""
        await self._calls.run(self._client.close)


def gather(waiting: Sequence[Event | None], begin: re.Pattern[bytes] | None) -> tuple[list[Event], int]:
    """The events of one call, and how many records they are made of. With `begin`, lines up to the next that matches are
    one event."""
    events: list[Event] = []
    size = taken = 0
    for record in waiting:
        if record is None and begin is None:
            taken += 1
            continue
        line = record or Event(events[-1].time_ms if events else 0, "")
        if begin is not None:
            line = Event(line.time_ms, f"{line.message}\n")
        goes_on = (
            begin is not None
            and bool(events)
            and begin.search(line.message.encode()) is None
            and events[-1].size + line.size <= EVENT_LIMIT
        )
        full = len(events) >= PUT_EVENTS and not goes_on
        if full or size + line.size > PUT_LIMIT or (events and line.time_ms - events[0].time_ms >= PUT_SPAN_MS):
            break
        if goes_on:
            events[-1] = Event(events[-1].time_ms, events[-1].message + line.message)
        elif record is not None:
            events.append(line)
        taken += 1
        size += line.size
    # The service wants them in order; entries of two streams may not be.
    return sorted(events, key=lambda event: event.time_ms), taken
