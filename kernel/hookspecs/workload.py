"""Hooks of a container's life. The `containers` plugin calls all of them, except where the docstring says otherwise.

    validate, create                    once, at `POST /containers/create`
      prepare, oci_spec, started        for each start, restarts included
      release                           for each end of a run, also after a start that failed half-way
    remove                              once

`create`/`remove` and `prepare`/`release` are pairs: whoever takes something in the first gives it back in the second,
from the container's record and its own stored state alone, since the daemon may have been killed in between. The
second of a pair is called again until it succeeds, so it must be idempotent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.hookspecs._markers import hookspec

if TYPE_CHECKING:
    from kernel.contracts.containers import ContainerDraft, ContainerRecord, Preparation
    from kernel.contracts.runtime import Exit, OciSpec


@hookspec("all")
async def engine_container_validate(draft: ContainerDraft) -> None:
    """Check one's part of a draft, before anything exists.

    Raise an EngineError to refuse (the client sees its message and status); append to `draft.warnings` what the
    client should know; fill defaults in `draft.config` and `draft.host` by replacing them (they are frozen models).
    Built-in order: runtime_oci 10, volumes 20, networks 30, logging 80.
    """
    raise NotImplementedError


@hookspec("all", deadline=300.0)
async def engine_container_create(draft: ContainerDraft) -> None:
    """Make what lives as long as the container: anonymous volumes, reserved endpoints, a log file's place.

    The writable layer exists; `await draft.rootfs()` mounts it on demand. Append to `draft.mounts`. An exception
    undoes the creation: `engine_container_remove` is then called for all plugins, and the client gets the error.
    Built-in order: volumes 20, networks 30, logging 80.
    """
    raise NotImplementedError


@hookspec("all", deadline=300.0)
async def engine_container_prepare(container: ContainerRecord, preparation: Preparation) -> None:
    """Make what lives as long as one run, and say so in `preparation`: mounts, the network namespace, a log target.

    The root file system is mounted. An exception fails the start: `engine_container_release` is then called for all
    plugins, and the client gets the error. Built-in order: volumes 20, networks 30, secrets 40, logging 80.
    """
    raise NotImplementedError


@hookspec("sync")
def engine_oci_spec(container: ContainerRecord, spec: OciSpec) -> None:
    """Change the OCI spec, in place, before the runtime creates the container.

    Called after the runtime has made the spec. Plain function, no I/O. A plugin that raises is logged and passed over;
    to refuse a container, use `engine_container_validate`. The return value must be None.
    """
    raise NotImplementedError


@hookspec("notify", deadline=30.0)
async def engine_container_started(container: ContainerRecord) -> None:
    """The container's command runs; its record is stored. Cannot refuse nor slow down the answer to the client."""
    raise NotImplementedError


@hookspec("all", deadline=60.0)
async def engine_container_release(container: ContainerRecord, exit: Exit | None) -> None:
    """Give back what `engine_container_prepare` took. Idempotent.

    Called in reverse order, for all plugins whatever each of them raises, when the container has ended (`exit` says
    how), when its start failed (None), and at the restore of a container whose end nobody saw. A failure is logged,
    and the release is tried again at the next start, removal or restore.
    """
    raise NotImplementedError


@hookspec("all", deadline=60.0)
async def engine_container_remove(container: ContainerRecord, volumes: bool) -> None:
    """Give back what `engine_container_create` took. Idempotent.

    Called in reverse order, for all plugins whatever each of them raises; nothing runs any more. `volumes` asks to
    remove the anonymous volumes too (`rm -v`, `--rm`).
    """
    raise NotImplementedError
