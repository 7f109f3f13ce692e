"""What a runtime says when it fails, in the words that dockerd's clients know.

The docker CLI makes exit code 127 of "executable file not found" and "no such file or directory", 126 of "permission
denied", and 125 of anything else. runc's words are taken as they are, crun's are translated.
"""

from __future__ import annotations

import json
import re

from plugin_sdk import EngineError, InvalidParameter

CREATE = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: {name} create failed: "
)
EXEC = "OCI runtime exec failed: exec failed: "
INIT = "unable to start container process: "

_LOGRUS = re.compile(r'level=(?:error|fatal) msg=(".*?(?<!\\)")')
_RUNC_PREFIX = re.compile(r"^(?:runc create failed|exec failed): ")
_CRUN_MISSING = re.compile(r"executable file `(?P<path>.*?)` not found(?: in \$PATH)?(?:: No such file or directory)?")
_CRUN_OPEN = re.compile(r"open executable(?: `.*?`)?: (?P<reason>.*)")
_CRUN_PATH = re.compile(r"the path `(?P<path>.*?)` (?P<reason>is not a regular file|exists but it is not executable)")
_CRUN_PARENT = re.compile(r"cannot open `(?P<path>.*?)`: Not a directory")
_CRUN_CWD = re.compile(r"chdir(?: to)? `(?P<path>.*?)`: (?P<reason>.*)")
_COMMAND = ("executable file not found", "no such file or directory", "permission denied", "not a directory")


def failure(text: str, *, name: str, command: str, exec: bool = False) -> EngineError:
    """The error to raise.

    Args:
        text: standard error of the runtime, or the entries of its log.
        name: the runtime's.
        command: the first word of what was to run.
        exec: it was an exec, not a container.
    """
    reason = _reason(text, command)
    prefix = EXEC if exec else CREATE.format(name=name)
    message = f"{prefix}{reason}: unknown"
    if reason.endswith("is a directory"):
        message += ": permission denied"
    if not exec and "not a directory" in reason:
        message += (
            ": Are you trying to mount a directory onto a file (or vice-versa)?"
            " Check if the specified host path exists and is the expected type"
        )
    if any(known in message.lower() for known in _COMMAND):
        return InvalidParameter(message)
    return EngineError(message)


def plain(text: str) -> str:
    """A runtime's own words, without the trimmings of its log format; the last error counts."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return "it gave no reason"
    for line in reversed(lines):
        if found := _LOGRUS.search(line):
            return str(json.loads(found[1]))
        if line.startswith("{"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("level", "error") in ("error", "fatal") and entry.get("msg"):
                return str(entry["msg"])
    return re.sub(r"^(?:\S+ )?(?:\[?error\]?|crun): ", "", lines[-1])


def _reason(text: str, command: str) -> str:
    words = _RUNC_PREFIX.sub("", plain(text))
    if found := _CRUN_MISSING.search(words):
        path = found["path"]
        if "/" in path:
            return f'{INIT}exec: "{path}": stat {path}: no such file or directory'
        return f'{INIT}exec: "{path}": executable file not found in $PATH'
    if found := _CRUN_OPEN.search(words):
        why = found["reason"].lower()
        if why == "operation not permitted":  # crun's answer to anything that is not a regular file
            why = "is a directory" if command else "executable file not found in $PATH"
        elif why == "not a directory":
            why = f"stat {command}: not a directory"
        return f'{INIT}exec: "{command}": {why}'
    if found := _CRUN_PATH.search(words):
        why = "is a directory" if found["reason"] == "is not a regular file" else "permission denied"
        return f'{INIT}exec: "{command}": {why}'
    if (found := _CRUN_PARENT.search(words)) and found["path"] == command:
        return f'{INIT}exec: "{command}": stat {command}: not a directory'
    if found := _CRUN_CWD.search(words):
        return f'{INIT}chdir to cwd ("{found["path"]}") set in config.json failed: {found["reason"].lower()}'
    for known in ("No such file or directory", "Permission denied", "Not a directory", "Operation not permitted"):
        words = words.replace(known, known.lower())
    return words
