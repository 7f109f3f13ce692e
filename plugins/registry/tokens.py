"""Proofs of who asks: Basic, and tokens from the server that a registry names.

Source: Docker's "Token Authentication Specification" and "Oauth2 Token Authentication" (distribution project).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from plugin_sdk import InvalidParameter, Unauthorized
from plugin_sdk.registry import Credentials

from . import answers, transport
from .answers import Asked
from .challenge import Challenge
from .hosts import Hosts, Trust

if TYPE_CHECKING:
    from .transport import Transport

_DOCUMENT_LIMIT = 256 << 10
_SHORTEST_LIFE = 60.0  # the specification: what says less, or nothing, lasts a minute
_LONGEST_LIFE = 3600.0
_MARGIN = 10.0
_CLIENT = "docker"  # token servers know this one
_KEPT = 512


@dataclass(frozen=True, slots=True)
class Token:
    """What a token server gave.

    Attributes:
        refresh: an identity token, or "".
        until: of the monotonic clock.
    """

    value: str
    refresh: str = ""
    until: float = 0.0


class TokenCache:
    """Tokens of all repositories until they expire; the oldest go first."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[tuple[str, ...], Token] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> Token | None:
        """One that is still good."""
        token = self._tokens.get(key)
        return token if token is not None and token.until > time.monotonic() else None

    def put(self, key: tuple[str, ...], token: Token) -> None:
        """Remember."""
        self._tokens[key] = token
        self._tokens.move_to_end(key)
        if len(self._tokens) > _KEPT:
            self._tokens.popitem(last=False)

    def drop(self, key: tuple[str, ...]) -> None:
        """Forget one that was not accepted."""
        self._tokens.pop(key, None)


@dataclass(frozen=True, slots=True)
class Identity:
    """Credentials, taken apart.

    Attributes:
        identity: an identity token (OAuth's refresh token).
        bearer: a token for the registry itself.
    """

    user: str = ""
    password: str = ""
    identity: str = ""
    bearer: str = ""

    @classmethod
    def of(cls, credentials: Credentials) -> Identity:
        """Raises InvalidParameter when `auth` is not base64 of "user:password"."""
        user, password = credentials.username, credentials.password
        if credentials.auth and not user and not password:
            try:
                decoded = base64.b64decode(credentials.auth, validate=True).decode()
            except (binascii.Error, ValueError):
                decoded = ""
            user, colon, password = decoded.rstrip("\0").partition(":")
            if not colon:
                raise InvalidParameter("invalid auth in the credentials: want base64 of USER:PASSWORD")
        return cls(user, password, credentials.identitytoken, credentials.registrytoken)

    @property
    def basic(self) -> str:
        """The header's value; "" without a user."""
        if not self.user:
            return ""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def fingerprint(self) -> str:
        """Tells identities apart without being one."""
        text = "\0".join((self.user, self.password, self.identity))
        return hashlib.sha256(text.encode()).hexdigest()


class Authorizer:
    """Answers one endpoint's challenges.

    Args:
        secure: the endpoint is reached by verified https: then no password goes to a token server without.
        scopes: for example ["repository:library/busybox:pull"].
    """

    def __init__(
        self,
        transport: Transport,
        hosts: Hosts,
        cache: TokenCache,
        identity: Identity,
        scopes: Sequence[str],
        asked: Asked,
        *,
        secure: bool,
        login: bool = False,
    ) -> None:
        self._transport, self._hosts, self._cache = transport, hosts, cache
        self._identity, self._scopes, self._asked = identity, tuple(scopes), asked
        self._secure, self._login = secure, login
        self._challenge: Challenge | None = None
        self.refresh = ""

    async def header(self) -> str:
        """The value of `Authorization` to send now, or "" while nothing was asked for."""
        if self._identity.bearer:
            return f"Bearer {self._identity.bearer}"
        if self._challenge is None:
            return ""
        if self._challenge.scheme == "basic":
            return self._identity.basic
        return f"Bearer {(await self._token(self._challenge)).value}"

    def take(self, challenges: Sequence[Challenge], sent: str) -> bool:
        """A registry refused a request that had `sent` as its proof; gives whether to ask again.

        Raises:
            Unauthorized: it wants a password, and there is none.
        """
        if self._identity.bearer:
            return False
        offered = {challenge.scheme: challenge for challenge in reversed(challenges)}
        chosen = offered.get("bearer") or offered.get("basic")
        if chosen is None:
            return False
        if chosen.scheme == "basic":
            if not self._identity.basic:
                raise answers.no_credentials(self._asked)
            if sent.startswith("Basic "):
                return False
        elif sent.startswith("Bearer "):
            self._cache.drop(self._key(chosen))
        self._challenge = chosen
        return True

    def _key(self, challenge: Challenge) -> tuple[str, ...]:
        where = (challenge.parameters.get("realm", ""), challenge.parameters.get("service", ""))
        return (*where, self._identity.fingerprint(), *self._scopes)

    async def _token(self, challenge: Challenge) -> Token:
        key = self._key(challenge)
        if not self._login and (token := self._cache.get(key)) is not None:
            return token
        token = await self._fetch(challenge)
        self._cache.put(key, token)
        self.refresh = token.refresh
        return token

    async def _fetch(self, challenge: Challenge) -> Token:
        realm = challenge.parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise InvalidParameter(f"registry of {self._asked.name} names no usable token server: {realm[:200]!r}")
        trust = await self._hosts.trust(parts.netloc)
        if parts.scheme == "http" and self._secure and not trust.insecure:
            raise InvalidParameter(
                f"registry of {self._asked.name} names a token server without TLS, {realm[:200]!r}: no credentials go there"
            )
        service = challenge.parameters.get("service", "")
        status, raw = await self._ask(realm, service, trust)
        if status != 200:
            refusal = answers.read(status, raw)
            if self._login and status in (400, 401, 403):
                raise Unauthorized(f"{transport.request_name('GET', realm)}: {refusal}")
            raise answers.error(self._asked, parts.netloc, refusal)
        return _read(raw, realm)

    async def _ask(self, realm: str, service: str, trust: Trust) -> tuple[int, bytes]:
        """An identity token is handed in by POST, as OAuth has it; all else is asked for by GET."""
        if self._identity.identity:
            form = {"grant_type": "refresh_token", "refresh_token": self._identity.identity, "client_id": _CLIENT}
            form |= {"service": service, "scope": " ".join(self._scopes)}
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            return await self._transport.fetch(
                "POST", realm, trust, headers=kind, data=urlencode(form).encode(), limit=_DOCUMENT_LIMIT
            )
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in self._scopes]
        headers = {}
        if self._identity.basic:
            headers["Authorization"] = self._identity.basic
            query.append(("account", self._identity.user))
        if self._login:
            query += [("client_id", _CLIENT), ("offline_token", "true")]
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        return await self._transport.fetch("GET", url, trust, headers=headers, limit=_DOCUMENT_LIMIT)


def _read(raw: bytes, realm: str) -> Token:
    try:
        document = json.loads(raw)
        value = document.get("token") or document.get("access_token")
        life = document.get("expires_in") or 0
        refresh = document.get("refresh_token") or ""
        usable = isinstance(value, str) and isinstance(life, int | float) and isinstance(refresh, str)
    except (ValueError, RecursionError, AttributeError):
        usable = False
    # It goes into a header: nothing may end that early.
    if not usable or not value.isascii() or not value.isprintable():
        raise InvalidParameter(f"token server {realm} gives no usable token")
    lasts = min(max(float(life), _SHORTEST_LIFE), _LONGEST_LIFE) - _MARGIN
    return Token(value, refresh, time.monotonic() + lasts)
