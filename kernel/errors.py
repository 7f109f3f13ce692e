"""What can go wrong, named by meaning. No transport is known here: the API server alone turns these into statuses.

EngineError
├── InvalidParameter    the request itself is wrong                         (400)
├── Unauthorized        credentials are missing or wrong                    (401)
├── Forbidden           understood, and refused                             (403)
├── NotFound            no such object                                      (404)
├── Conflict            the object's state or name forbids it               (409)
├── TooLarge            the body passes what is accepted                    (413)
├── NotModified         nothing to do                                       (304)
├── NotSupported        this engine, kernel or configuration cannot do it   (501)
├── Unavailable         something needed does not answer now                (503)
│   └── DeadlineExceeded  ... within its time
├── PluginRefusal       a plugin on a socket said no; carries its words     (500)
└── PluginError         a plugin failed; carries its name                   (500)
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of all expected failures. `str(error)` is the message that a user reads."""


class InvalidParameter(EngineError):
    """The request is malformed or contradicts itself."""


class Unauthorized(EngineError):
    """Credentials are missing or wrong."""


class Forbidden(EngineError):
    """Understood, and refused."""


class NotFound(EngineError):
    """No object answers to that name or ID."""


class Conflict(EngineError):
    """The object's present state, or another object's name, forbids the request."""


class TooLarge(EngineError):
    """A body or a reply passes the size that is accepted."""


class NotModified(EngineError):
    """The object is already in the state asked for."""


class NotSupported(EngineError):
    """This engine, kernel or configuration cannot do it; the message says what is missing."""


class Unavailable(EngineError):
    """Something that is needed does not answer now."""


class DeadlineExceeded(Unavailable):
    """Something did not answer within its time."""


class PluginRefusal(EngineError):
    """A plugin in a process of its own answered with an error: not a failure of the plugin, but its answer.

    Attributes:
        plugin: the plugin's name.
        call: method of the protocol, for example `VolumeDriver.Mount`.
        text: the plugin's own words.
    """

    def __init__(self, plugin: str, call: str, text: str) -> None:
        super().__init__(f"plugin {plugin!r}: {call}: {text}")
        self.plugin = plugin
        self.call = call
        self.text = text


class PluginError(EngineError):
    """A plugin raised, hung or answered rubbish.

    Attributes:
        plugin: the plugin's name.
        call: the hook or driver method, for example `engine_container_prepare` or `VolumeDriver.mount`.
    """

    def __init__(self, plugin: str, call: str, reason: str) -> None:
        super().__init__(f"plugin {plugin!r} failed in {call}: {reason}")
        self.plugin = plugin
        self.call = call
        self.reason = reason
