"""Whether an answer is what was asked for, and what is said of those that are not."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from agent.core.names import show
from agent.core.remote import Location
from agent.errors import Code, WantdError
from agent.net.redirect import origin
from agent.transfer.pieces import Piece
from agent.transfer.wire import Head, Refused

_PAGE = re.compile(r"\.html?\b", re.IGNORECASE)


class Changed(Exception):
    """These are bytes of another version of the file."""


def want_206(piece: Piece, head: Head, start: int, end: int) -> None:
    """Raise unless these are the bytes from `start` to `end` (exclusive), of a file of the right size."""
    if head.status != 206:
        raise Refused(f"it answered {head.status} to a request for a range")
    first, behind, total = head.content_range
    if total != piece.download.size:
        raise size_error(piece, total, piece.download.size)
    if (first, behind) != (start, end):
        raise Refused(f"bytes {first}-{behind - 1} came, {start}-{end - 1} were asked for")
    if head.length not in (None, end - start):
        raise Refused(f"a range of {end - start} bytes came with a Content-Length of {head.length}")


def want_200(head: Head) -> None:
    """Raise unless it is a whole file."""
    if head.status != 200:
        raise Refused(f"it answered {head.status} to a request for the whole file")


def check_etag(piece: Piece, head: Head) -> None:
    """All bytes from one location are of one version: a strong ETag must not change."""
    etag, download = head.get("etag"), piece.download
    if not etag or etag.startswith("W/"):
        return
    with download.lock:
        if piece.generation != download.generation or download.ignore_etag:
            return
        if download.etag is None:
            download.etag = etag
        elif download.etag != etag:
            raise Changed


def refuse_page(piece: Piece, head: Head) -> None:
    """Raise for a web page, where no page was asked for."""
    names = f"{piece.download.request.label} {urlsplit(piece.location.url).path}"
    if head.get("content-type").lower().startswith("text/html") and not _PAGE.search(names):
        raise Refused("it is an HTML page, a login page of this network perhaps")


def size_error(piece: Piece, found: int | None, size: int | None) -> Exception:
    """Another size than before: another file, where the size is only what the server said of it itself."""
    if piece.download.request.size is None:
        return Changed()
    return Refused(f"the file has {found} bytes there, expected {size}")


def unreachable(piece: Piece, what: str) -> WantdError:
    """The bytes did not come."""
    location = piece.location
    code = Code.HUB_UNREACHABLE if location.source == "hub" else Code.PROXY_UNREACHABLE
    host = show(origin(location.url).host, 80)
    return WantdError(
        code,
        f"{host} did not bring {show(piece.download.request.label)}: {what}",
        "wantd tries again by itself; check the network and the host's own state when it goes on",
        file=piece.download.request.label,
    )


def stalled(piece: Piece, what: str, stall_s: float) -> WantdError:
    """The connection is there, and silent."""
    return WantdError(
        Code.STALLED,
        f"{show(origin(piece.location.url).host, 80)} keeps the connection but sends nothing: {what}",
        f"wantd tries again by itself; transfer.stall_timeout_s ({stall_s:g} s) says how long silence is borne",
        file=piece.download.request.label,
    )


def refusal(piece: Piece, what: str) -> WantdError:
    """The answer cannot be used."""
    return WantdError(
        Code.HUB_PROTOCOL,
        f"what {show(origin(piece.location.url).host, 80)} answers for {show(piece.download.request.label)} {what}",
        "a proxy or login page may be in between; check HF_ENDPOINT, or report it to whoever runs that server",
        file=piece.download.request.label,
    )


def limited(location: Location, seconds: float) -> WantdError:
    """The host wants to be left alone for that long."""
    return WantdError(
        Code.RATE_LIMITED,
        f"{show(origin(location.url).host, 80)} wants no more requests for {seconds:.0f} s",
        "nothing to do, wantd goes on by itself; a token (HF_TOKEN) gives a larger quota",
        retry_after_s=seconds,
    )
