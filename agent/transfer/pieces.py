"""What a lane has in hands: one piece of one download, and why it did not come, when it did not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from agent.core.remote import Location
from agent.errors import WantdError

if TYPE_CHECKING:
    from agent.transfer.download import Download

SLOW_AFTER_S = 3.0  # seconds a lane is watched before it is judged; TCP has left its slow start by then


class Shape(Enum):
    """How a piece is asked for."""

    RANGE = auto()  # some granules of many
    STREAM = auto()  # the whole body from byte 0, where the server knows no ranges or the size is unknown
    SMALL = auto()  # the whole body into one buffer


class Kind(Enum):
    """What the fetch has to do about a failure."""

    PASSING = auto()  # wait, try again; ask for another location when nothing moves
    RELOCATE = auto()  # the location is used up or useless: ask for another at once
    RATE = auto()  # the host wants no requests for a while
    CHANGED = auto()  # these are bytes of another file now
    FATAL = auto()  # raise it


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a piece did not come, and for `RATE` how many seconds the host wants to be left alone."""

    kind: Kind
    error: WantdError
    wait_s: float = 0.0


class Piece:
    """Some granules of a file in the hands of one lane. `last` may be moved to the front by a split."""

    def __init__(self, download: Download, shape: Shape, first: int, last: int, now: float) -> None:
        assert download.location is not None  # noqa: S101  pieces are taken from located downloads only
        self.download = download
        self.shape = shape
        self.index, self.last = first, last  # the granule in work, one behind the last
        self.pos = 0  # offset in the file of the next byte
        self.crc = 0  # of the bytes of the granule in work
        self.received = 0
        self.location: Location = download.location
        self.generation = download.generation
        self.started = now
        self.stopped = False
        self.mark = (now, 0)  # when the speed was last looked at, and `received` then
        self.speed: float | None = None  # bytes per second between the last two marks

    def look(self, now: float) -> float | None:
        """The speed of the last `SLOW_AFTER_S` seconds or so, None while it is too early to tell."""
        since, base = self.mark
        if now - since >= SLOW_AFTER_S:
            self.speed = (self.received - base) / (now - since)
            self.mark = (now, self.received)
        return self.speed
