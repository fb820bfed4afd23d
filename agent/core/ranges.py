"""Which bytes of a file are there, which are on their way, and which to ask for next.

A file is cut into granules of one size (the last may be shorter). A granule is what the journal vouches for, with
one checksum; a span is a run of granules that one request asks for. Granules are handed out from the front, so
that a hash over the file in order is never far behind.
"""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024 * KIB

GRANULE_MIN = 256 * KIB  # a kill loses up to one granule a connection: 16 of these are 4 MiB
GRANULE_MAX = 4 * MIB  # a connection that dies every few seconds must still finish some
GRANULES = 8192  # a journal of 8 to 16 thousand short lines is read in milliseconds

SPAN_FIRST = 4 * MIB  # the first request of a connection whose speed is not known yet
SPAN_MAX = 64 * MIB  # times 16 connections: how far the front of the file may be behind the last byte asked for
SPAN_S = 2.0  # one request should last this long: a round trip of 100 ms between two then costs 5 %

_MISSING, _TAKEN, _THERE = 0, 1, 2
_RUN = re.compile(rb"\x02+")


def granule_for(size: int, slice_bytes: int = 0) -> int:
    """The granule, in bytes, for a file of `size` bytes: 256 KiB to 4 MiB, doubled as the file grows.

    Where a source keeps files in slices, a granule is one of them, of `slice_bytes`.
    """
    if slice_bytes:
        return slice_bytes
    granule = GRANULE_MIN
    while granule < GRANULE_MAX and granule * GRANULES < size:
        granule *= 2
    return granule


def span_bytes(untaken: int, lanes: int, rate: float | None) -> int:
    """How many bytes the next request should ask for.

    About `SPAN_S` seconds at the lane's `rate` (bytes per second, None when unknown), and never more than half of
    this lane's share of what is left: requests get shorter towards the end, so that all lanes end together
    (guided self-scheduling, Polychronopoulos and Kuck 1987).
    """
    wanted = SPAN_FIRST if rate is None else int(rate * SPAN_S)
    return max(1, min(wanted, SPAN_MAX, untaken // (2 * max(lanes, 1))))


class Grid:
    """The granules of one file. Not thread-safe: its owner holds a lock."""

    def __init__(self, size: int, granule: int) -> None:
        if size < 0 or granule < 1:
            raise ValueError(f"no grid of {size} bytes in granules of {granule}")
        self.size = size
        self.granule = granule
        self.count = -(-size // granule)
        self._state = bytearray(self.count)
        self._low = 0  # no granule below is missing
        self._front = 0  # every granule below is there
        self._missing = self.count
        self._there_bytes = 0
        self.lost_bytes = 0  # in granules that were there, and turned out bad

    def start(self, index: int) -> int:
        """Offset of the granule's first byte."""
        return index * self.granule

    def end(self, index: int) -> int:
        """Offset behind the granule's last byte."""
        return min((index + 1) * self.granule, self.size)

    @property
    def there_bytes(self) -> int:
        """Bytes in granules that are there."""
        return self._there_bytes

    @property
    def untaken_bytes(self) -> int:
        """Bytes, to the granule, that are neither there nor on their way."""
        return min(self._missing * self.granule, self.size - self._there_bytes)

    @property
    def front(self) -> int:
        """The number of granules that are there without a gap from the beginning."""
        while self._front < self.count and self._state[self._front] == _THERE:
            self._front += 1
        return self._front

    @property
    def complete(self) -> bool:
        """Whether every granule is there."""
        return self.front == self.count

    def is_there(self, index: int) -> bool:
        """Whether the granule is there."""
        return self._state[index] == _THERE

    def there(self) -> list[tuple[int, int]]:
        """Offsets of the first byte, and behind the last one, of each run of granules that are there."""
        return [(self.start(run.start()), self.end(run.end() - 1)) for run in _RUN.finditer(self._state)]

    def take(self, most_bytes: int) -> tuple[int, int] | None:
        """Take the first run of missing granules, about `most_bytes` long but at least one granule.

        Returns first and one behind last, or None when nothing is missing.
        """
        first = self._state.find(_MISSING, self._low)
        self._low = self.count if first < 0 else first
        if first < 0:
            return None
        last = first + 1
        most = first + max(1, most_bytes // self.granule)
        while last < min(most, self.count) and self._state[last] == _MISSING:
            last += 1
        self._state[first:last] = bytes([_TAKEN]) * (last - first)
        self._missing -= last - first
        return first, last

    def take_all(self) -> tuple[int, int] | None:
        """Take every missing granule for one stream over the whole file. None when nothing is missing."""
        if not self._missing:
            return None
        self._state = self._state.replace(bytes([_MISSING]), bytes([_TAKEN]))
        self._missing = 0
        self._low = self.count
        return 0, self.count

    def give_back(self, first: int, last: int) -> None:
        """Make the taken granules of the run missing again; those that are there stay."""
        for index in range(first, last):
            if self._state[index] == _TAKEN:
                self._state[index] = _MISSING
                self._missing += 1
                self._low = min(self._low, index)

    def mark(self, index: int) -> bool:
        """The granule is there now. Returns False when it was already."""
        if self._state[index] == _THERE:
            return False
        self._missing -= self._state[index] == _MISSING
        self._state[index] = _THERE
        self._there_bytes += self.end(index) - self.start(index)
        return True

    def lose(self, index: int) -> None:
        """The granule turned out bad: it is missing again."""
        if self._state[index] == _THERE:
            self.lost_bytes += self.end(index) - self.start(index)
            self._there_bytes -= self.end(index) - self.start(index)
            self._front = min(self._front, index)
        if self._state[index] != _MISSING:
            self._missing += 1
        self._state[index] = _MISSING
        self._low = min(self._low, index)
