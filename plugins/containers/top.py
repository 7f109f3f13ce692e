"""The processes of a container, as the host's `ps` shows them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from plugin_sdk import Conflict, InvalidParameter
from plugin_sdk.aio import run
from plugin_sdk.containers import ContainerRecord, ContainerStatus

if TYPE_CHECKING:
    from .service import ContainerService

DEFAULT_ARGS = "-ef"
DEADLINE = 10.0

# The column PID is how the container's processes are found: no other may take that title (`-o ppid=PID`).
_TITLED_PID = re.compile(r"\s(\S*)=\s*(PID\S*)")


async def top(service: ContainerService, record: ContainerRecord, ps_args: str = DEFAULT_ARGS) -> dict[str, Any]:
    """{"Titles": [...], "Processes": [[...], ...]}.

    Raises:
        Conflict: the container does not run.
        InvalidParameter: arguments that `ps` refuses, or that hide the PID column.
        NotSupported: there is no `ps`.
    """
    if record.State.Status is ContainerStatus.RESTARTING:
        raise Conflict(f"Container {record.Id} is restarting, wait until the container is running")
    if not record.State.running:
        raise Conflict(f"container {record.Id} is not running")
    for field, title in _TITLED_PID.findall(ps_args):
        if field != "pid":
            raise InvalidParameter(f'specifying "{field}={title}" is not allowed')
    try:
        arguments = shlex.split(ps_args) or [DEFAULT_ARGS]
    except ValueError as error:
        raise InvalidParameter(f"invalid ps arguments {ps_args!r}: {error}") from None
    pids = await service.runtime_of(record).pids(record.Id)
    # By their PIDs, so that arguments which select nothing else (`-o pid,args`) find them; not all arguments go with that.
    done = await run(["ps", *arguments, f"-q{','.join(map(str, pids))}"], timeout=DEADLINE)
    if done.code != 0:
        done = await run(["ps", *arguments], timeout=DEADLINE)
    if done.code != 0 and not done.stdout:
        raise InvalidParameter(f"ps: {done.message.splitlines()[0] if done.message else f'exit code {done.code}'}")
    table = parse(done.stdout.decode(errors="replace"), pids)
    service.emit(record, "top")
    return table


def parse(output: str, pids: Collection[int]) -> dict[str, Any]:
    """The lines of `ps` whose PID is one of `pids`, split into the columns of its first line.

    Raises:
        InvalidParameter: there is no PID column.
    """
    first, *lines = output.splitlines() or [""]
    titles = first.split()
    if "PID" not in titles:
        raise InvalidParameter("Couldn't find PID field in ps output")
    place = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    processes: list[list[str]] = []
    inside = False
    for line in lines:
        fields = line.split(maxsplit=len(titles) - 1)
        if len(fields) <= place:
            continue
        # A "-" stands for a thread of the process above it.
        inside = fields[place] in wanted or (inside and fields[place] == "-")
        if inside:
            processes.append([field.strip() for field in fields])
    return {"Titles": titles, "Processes": processes}
