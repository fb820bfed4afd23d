"""A piece: what one lane has in hand of a file."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from agent.core.retry import SLOW_AFTER_S

if TYPE_CHECKING:
    from agent.core.remote import Location
    from agent.transfer.download import Download


class RequestShape(Enum):
    """How a piece is asked for."""

    RANGE = auto()  # some granules of many
    STREAM = auto()  # the whole body from byte 0, where the server knows no ranges or the size is unknown
    SMALL = auto()  # the whole body into one buffer (transfer/small.py)


class Piece:
    """Some granules of a file in the hands of one lane. `last` may be moved to the front by a split.

    A piece that is `stopped` has to be let go by its lane. Unless it is `void` too, what came of it counts, to the
    byte: it was only taken back.
    """

    def __init__(
        self, download: Download, location: Location, shape: RequestShape, span: tuple[int, int], now: float
    ) -> None:
        self.download = download
        self.shape = shape
        self.index, self.last = span  # the granule in work, one behind the last
        self.pos = 0  # offset in the file of the next byte
        self.crc = 0  # of the bytes of the granule in work
        self.received = 0
        self.location = location
        self.address = ""  # of the host, that answers; empty while that is not known
        self.generation = download.generation
        self.started = now
        self.stopped = False
        self.void = False
        self.mark = (now, 0)  # when the speed was last looked at, and `received` then
        self.speed: float | None = None  # bytes per second between the last two marks

    def look(self, now: float) -> float | None:
        """The speed of the last `SLOW_AFTER_S` seconds or so, None while it is too early to tell."""
        since, base = self.mark
        if now - since >= SLOW_AFTER_S:
            self.speed = (self.received - base) / (now - since)
            self.mark = (now, self.received)
        return self.speed
