"""Image references: `[domain/]path[:tag][@digest]`, their familiar and full forms.

Source: the grammar of the distribution project's reference format, and Docker's rules for familiar names: without a
domain "docker.io" is meant, and there a bare name lies under "library/".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from kernel.errors import InvalidParameter

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"

_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_NAME = 255

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_HOST = re.compile(_DOMAIN)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_HEX64 = re.compile(r"[a-f0-9]{64}")
_ID = re.compile(r"(?:sha256:)?[a-f0-9]{64}")
_ID_PREFIX = re.compile(r"(?:sha256:)?[a-f0-9]{1,64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised reference.

    Attributes:
        domain: for example "docker.io" or "127.0.0.1:5000".
        path: for example "library/busybox".
        tag: "" without one.
        digest: "sha256:...", "" without one.
    """

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Full repository name: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """Repository name as people write it: `busybox`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(_OFFICIAL)
        return rest if rest and "/" not in rest else self.path

    @property
    def suffix(self) -> str:
        """`:tag@digest`, as far as they are there."""
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar(self) -> str:
        """The reference as people write it: `busybox:latest`."""
        return self.familiar_name + self.suffix

    def tagged(self) -> Reference:
        """With the tag "latest" where there is neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def with_tag(self, tag: str) -> Reference:
        """The same repository under another tag. Raises InvalidParameter ("invalid tag format")."""
        if not _TAG.fullmatch(tag):
            raise InvalidParameter("invalid tag format")
        return replace(self, tag=tag, digest="")

    def with_digest(self, digest: str) -> Reference:
        """The same repository at a digest. Raises InvalidParameter."""
        if not _DIGEST.fullmatch(digest):
            raise InvalidParameter("invalid digest format")
        return replace(self, tag="", digest=digest)

    def __str__(self) -> str:
        return self.name + self.suffix


def parse(text: str) -> Reference:
    """A reference, normalised; the tag is not filled in (see `Reference.tagged`).

    Raises:
        InvalidParameter: "invalid reference format", with the reason where Docker names one.
    """
    if _HEX64.fullmatch(text):
        raise InvalidParameter(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidParameter("invalid reference format")
    domain, remainder = _split_domain(rest)
    path, colon, tag = remainder.partition(":")
    if path.lower() != path:
        raise InvalidParameter(f"invalid reference format: repository name ({path}) must be lowercase")
    if (colon and not _TAG.fullmatch(tag)) or not _PATH.fullmatch(path) or not _HOST.fullmatch(domain):
        raise InvalidParameter("invalid reference format")
    if len(domain) + 1 + len(path) > _MAX_NAME:
        raise InvalidParameter(f"repository name must not be more than {_MAX_NAME} characters")
    return Reference(domain, path, tag, digest)


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_domain = slash and (first == "localhost" or any(sign in first for sign in ".:[") or first.lower() != first)
    domain, remainder = (first, rest) if is_domain else (DEFAULT_DOMAIN, text)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder


def familiar(text: str) -> str:
    """A reference in its familiar form with a tag or digest: `busybox` gives `busybox:latest`. Raises InvalidParameter."""
    return parse(text).tagged().familiar


def is_image_id(text: str) -> bool:
    """A full image ID, with or without `sha256:`."""
    return _ID.fullmatch(text) is not None


def may_be_id_prefix(text: str) -> bool:
    """Could be the beginning of an image ID."""
    return _ID_PREFIX.fullmatch(text) is not None
