"""Whether a body is what was asked for: these bytes, of this version of the file."""

from __future__ import annotations

from agent.core.access import Body, ProtocolError
from agent.transfer.failures import Changed
from agent.transfer.piece import Piece


def is_whole(body: Body) -> bool:
    """Whether the body begins with the first byte of the file and ends with its last."""
    return body.start == 0 and body.end == body.size


def require_range(piece: Piece, body: Body, start: int, end: int) -> None:
    """Raise unless these are the bytes from `start` to `end` (exclusive), of a file of the right size."""
    if body.size != piece.download.size:
        raise size_error(piece, body.size)
    if (body.start, body.end) != (start, end):
        last = "the end" if body.end is None else body.end - 1
        raise ProtocolError(f"got bytes {body.start}-{last}, asked for {start}-{end - 1}")


def require_whole(body: Body) -> None:
    """Raise unless the body is the whole file."""
    if not is_whole(body):
        raise ProtocolError(f"got bytes from {body.start} on, asked for the whole file")


def check_etag(piece: Piece, body: Body) -> None:
    """All bytes from one location are of one version: its ETag must not change."""
    etag, download = body.etag, piece.download
    if etag is None:
        return
    with download.lock:
        if piece.generation != download.generation or download.ignore_etag:
            return
        if download.etag is None:
            download.etag = etag
        elif download.etag != etag:
            raise Changed


def size_error(piece: Piece, found: int | None) -> Exception:
    """Another size than before: another file, where the size is only what the server said of it itself."""
    if piece.download.request.size is None:
        return Changed()
    return ProtocolError(f"the file has {found} bytes there, expected {piece.download.size}")
