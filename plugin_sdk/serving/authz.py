"""AuthZPlugin 1.0. Source of the field names: moby, pkg/authorization/api.go; Docker's page spells some otherwise."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from kernel.contracts.api import API_VERSION, Denial, RequestView, ResponseView
from kernel.contracts.common import Wire
from kernel.errors import InvalidParameter, TooLarge
from plugin_sdk.serving.dispatch import Interface, Method, expect

_VERSIONED = re.compile(r"/v(\d+)\.(\d+)(?=/)")
_DEADLINE = 10.0
"""Seconds; every request of every client waits."""


class _Request(Wire):
    User: str = ""
    UserAuthNMethod: str = ""
    RequestMethod: str = ""
    RequestUri: str = ""
    RequestBody: str = ""
    RequestHeaders: dict[str, str] = {}
    RequestPeerCertificates: list[str] = []


class _Response(_Request):
    ResponseStatusCode: int = 0
    ResponseBody: str = ""
    ResponseHeaders: dict[str, str] = {}


class _Source:
    """Fulfils `RequestSource`: all is there already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def body(self, limit: int) -> bytes:
        if len(self._content) > limit:
            raise TooLarge(f"the request body is larger than {limit} bytes")
        return self._content

    def judge_response(self) -> None:
        """The engine asks about every response."""


class AuthorizationInterface(Interface):
    """Serves an `AuthorizationPlugin`."""

    type = "docker.authz/1.0"
    legacy = "authz"

    def methods(self) -> Mapping[str, Method]:
        """See `Interface.methods`."""
        return {
            "AuthZPlugin.AuthZReq": Method(self._request, _Request, _DEADLINE),
            "AuthZPlugin.AuthZRes": Method(self._response, _Response, _DEADLINE),
        }

    async def _request(self, asked: _Request) -> Mapping[str, Any]:
        return _decision(await self.driver.request(_view(asked)))

    async def _response(self, asked: _Response) -> Mapping[str, Any]:
        body = _bytes(asked.ResponseBody) or None
        response = ResponseView(asked.ResponseStatusCode, _lower(asked.ResponseHeaders), body)
        return _decision(await self.driver.response(_view(asked), response))


def _decision(denial: Any) -> Mapping[str, Any]:
    if denial is None:
        return {"Allow": True, "Msg": "", "Err": ""}
    return {"Allow": False, "Msg": expect(denial, Denial, "the plugin").message, "Err": ""}


def _view(asked: _Request) -> RequestView:
    path, _, query = asked.RequestUri.partition("?")
    version = API_VERSION
    if found := _VERSIONED.match(path):
        version = (int(found[1]), int(found[2]))
        path = path[found.end() :]
    return RequestView(
        method=asked.RequestMethod,
        path=unquote(path),
        query=query,
        headers=_lower(asked.RequestHeaders),
        api_version=version,
        peer=asked.User,
        auth_method=asked.UserAuthNMethod,
        certificates=[_bytes(text).decode(errors="replace") for text in asked.RequestPeerCertificates],
        target=asked.RequestUri,
        source=_Source(_bytes(asked.RequestBody)),
    )


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InvalidParameter(f"a body that is no base64: {error}") from None
