"""How lanes read the bytes of a location: what a way of access must offer, and how it fails.

Plain HTTP is a value, `PlainHttp`: the transfer engine speaks it itself, over connections that all lanes share. Any
other way (a cache of this host, Xet, a registry that hands out a token for each blob) implements `Opener`, in the file
of its source, and no other module has to know of it. tests/transfer/test_access.py shows how.

The methods of a `Body` and of an `Opener` run in the thread of a lane and may block. They fail with the exceptions
below, or with a WantdError, after which a new location is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit


class ConnectionLost(Exception):
    """The connection ended or failed before the bytes were there; trying again is worth it. The text says why."""


class Stalled(Exception):
    """The far end keeps the connection and sends nothing, or next to nothing. The text gives the figures."""


class ProtocolError(Exception):
    """The far end does not do what it should, and will not; another location may. The text says what, for messages."""


class LocationExpired(Exception):
    """The location gives no bytes any more, a new one may: a signed URL expired, a file was removed."""


class RateLimited(Exception):
    """The far end takes no request for `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class Stopped(Exception):
    """The piece was taken from its lane. Raised by a `Caller`; let it pass."""


class AddressCheck(Protocol):
    """Which addresses a connection may go to. Thread-safe, compared by identity.

    A connection that was made under one rule is never used under another: a private load balancer must not open the
    private network to a public Hub.
    """

    def check(self, host: str, ip: str) -> None:
        """Raise `hub_protocol` when `host`, which has the address `ip`, must not be connected to."""
        ...

    def check_literal(self, host: str) -> None:
        """The same for a host that is written as an address, before any name is resolved."""
        ...


@dataclass(frozen=True, slots=True)
class PlainHttp:
    """HTTP/1.1 at `url`, where connections are made under `rule`.

    `url` may be signed: it is never logged. `headers` go with every request to it, a token only where `url` is the host
    that the token is for.
    """

    url: str = field(repr=False)
    rule: AddressCheck = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def host(self) -> str:
        """What messages call the far end."""
        try:
            return urlsplit(self.url).hostname or ""
        except ValueError:
            return ""


class Body(Protocol):
    """The bytes that one request gives, from `start` to `end` (exclusive; None: to the end of a file of unknown size).

    `size` is the whole file's in bytes and `etag` names its version, None where they are not known. An `etag` is only
    compared with others of this location. `ranges` says whether parts of the file can be asked for.
    """

    start: int
    end: int | None
    size: int | None
    etag: str | None
    ranges: bool

    def read_into(self, view: memoryview) -> int:
        """Read into the view: at least one byte, better all. Returns 0 at the proper end of the body only."""
        ...

    def finish(self) -> bool:
        """Read what ends the body when all bytes that were expected are there. True when there are more of them."""
        ...

    def close(self, complete: bool) -> None:
        """Let go. `complete`: everything was read and a connection may serve the next request."""
        ...


class Caller(Protocol):
    """The lane that asks: what a way of access needs of it."""

    @property
    def label(self) -> str:
        """The file that is read, for messages."""
        ...

    @property
    def stall_s(self) -> float:
        """Seconds without a byte after which to raise `Stalled`."""
        ...

    def watch(self, cut: Callable[[], None] | None) -> None:
        """`cut` is called from another thread when the piece is stopped, and must wake what blocks here; the last one
        given counts, None means that nothing is to be cut. Raises `Stopped` when the piece is stopped already.
        """
        ...

    def pause(self, seconds: float) -> None:
        """Sleep. Raises `Stopped` when the piece is stopped meanwhile."""
        ...

    def connected(self, address: str) -> None:
        """Say which address of the host answers; an empty text where that is not known."""
        ...

    def http(self, access: PlainHttp, span: tuple[int, int] | None) -> Body:
        """Ask for bytes over plain HTTP, as `Opener.open` does: for a way of access that is built on it."""
        ...


class Opener(Protocol):
    """A way to read one file that is not plain HTTP. Thread-safe: several lanes open several parts at once."""

    @property
    def host(self) -> str:
        """What messages call the far end."""
        ...

    def open(self, span: tuple[int, int] | None, caller: Caller) -> Body:
        """Ask for the bytes from the first to the second offset (exclusive), or for the whole file.

        A body may begin at byte 0 and run to the end of the file although a part was asked for: then no more parts are.
        """
        ...


Access = PlainHttp | Opener
