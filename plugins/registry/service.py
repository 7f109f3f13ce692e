"""The service: repositories of all registries, and logins."""

from __future__ import annotations

from plugin_sdk import NotFound, Unauthorized
from plugin_sdk.reference import Reference
from plugin_sdk.registry import Credentials, RepositoryKind

from .answers import Asked
from .client import Client
from .hosts import Hosts, domain_of
from .repository import RemoteRepository
from .settings import INDEX, Settings
from .tokens import Authorizer, Identity, TokenCache
from .transport import Transport, document

_DOCUMENT_LIMIT = 64 << 10


class Registries:
    """Fulfils `Registry`. Work that goes on keeps the settings that it began with."""

    def __init__(self, settings: Settings, agent: str) -> None:
        self._agent = agent
        self._cache = TokenCache()
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Take other settings."""
        self.settings = settings
        self._hosts = Hosts(settings)
        self._proxies = settings.proxy_choice()

    def repository(
        self, reference: Reference, credentials: Credentials, *, kind: RepositoryKind = "image", push: bool = False
    ) -> RemoteRepository:
        """See `Registry`."""
        return RemoteRepository(
            reference,
            credentials,
            kind=kind,
            push=push,
            hosts=self._hosts,
            cache=self._cache,
            transport=Transport(self._proxies, self._agent),
            attempts=self.settings.max_download_attempts,
        )

    async def login(self, credentials: Credentials) -> str:
        """See `Registry`."""
        domain = domain_of(credentials.serveraddress)
        hosts = self._hosts
        transport = Transport(self._proxies, self._agent)
        try:
            endpoint = (await hosts.endpoints(domain, mirrors=False))[-1]
            secure = not (await hosts.trust(endpoint.host)).insecure
            identity = Identity.of(credentials)
            asked = Asked(INDEX if domain == "docker.io" else domain, login=True)
            authorizer = Authorizer(transport, hosts, self._cache, identity, (), asked, secure=secure, login=True)
            client = Client(endpoint, transport, hosts, authorizer)
            async with client.request("GET", "", asked, expect=(200, 401, 403, 404)) as response:
                status, reason = response.status, response.reason
                await document(response, _DOCUMENT_LIMIT)
            if status != 200:
                kind = NotFound if status == 404 else Unauthorized
                url = await client.base()
                raise kind(f"login attempt to {url} failed with status: {status} {_printable(reason)}")
        finally:
            await transport.close()
        return authorizer.refresh


def _printable(text: str | None) -> str:
    return "".join(sign for sign in text or "" if sign.isprintable())[:100]
