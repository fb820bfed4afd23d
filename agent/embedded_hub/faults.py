"""Switches that make the embedded Hub misbehave, path by path, while it runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Faults:
    """What goes wrong with the answers that a rule matches. Every default means: nothing.

    Body switches act on any answer's body; offsets of `flip_at` count in the file, all others in the body sent.
    """

    times: int | None = None  # how many requests the rule lasts; None: until it is cleared
    latency_s: float = 0.0  # silence before the status line, seconds
    status: int | None = None  # answer this status with no body that helps
    retry_after: str | None = None  # the Retry-After header that goes with `status`
    max_rate: int | None = None  # bytes/s of one answer's body
    stall_after: int | None = None  # send so many bytes, then nothing, the connection stays open
    cut_after: int | None = None  # send so many bytes, then close the connection
    flip_at: int | None = None  # the byte at this offset of the file is sent inverted
    short_by: int = 0  # a well-formed answer that announces and sends so many bytes too few
    ignore_ranges: bool = False  # 200 and the whole file, whatever Range says
    endless: bool = False  # no length, and bytes without end after the true ones
    content_range: str | None = None  # says this instead of the true Content-Range
    etag: str | None = None  # says this instead of the true ETag (quotes are added), also as X-Linked-Etag

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Faults:
        """Raises ValueError for a switch that does not exist."""
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"unknown switches: {', '.join(sorted(unknown))}")
        return cls(**values)

    @property
    def touches_body(self) -> bool:
        """Whether bytes must pass through Python rather than sendfile."""
        stops = (self.max_rate, self.stall_after, self.cut_after, self.flip_at)
        return self.endless or any(switch is not None for switch in stops)


NO_FAULTS = Faults()


class FaultBoard:
    """The rules in force. The glob is matched against listener and path, unquoted and without the query:
    `hub/api/models/org/name/…`, `hub/org/name/resolve/main/file`, `hub/api/resolve-cache/…`,
    `cdn/org/name/<sha256>/file`; `*` also matches `/`. The rule set last wins.
    """

    def __init__(self) -> None:
        self._rules: dict[str, Faults] = {}
        self._left: dict[str, int] = {}

    def set(self, glob: str, faults: Faults) -> None:
        """Put a rule in force, in place of one with the same glob."""
        self.clear(glob)
        self._rules[glob] = faults
        if faults.times is not None:
            self._left[glob] = faults.times

    def clear(self, glob: str | None = None) -> None:
        """Take back one rule, or all."""
        for name in [glob] if glob is not None else list(self._rules):
            self._rules.pop(name, None)
            self._left.pop(name, None)

    def take(self, target: str) -> Faults:
        """The faults for one request; counts it against the rule's `times`."""
        for glob in reversed(self._rules):
            if fnmatchcase(target, glob) and self._left.get(glob, 1) > 0:
                if glob in self._left:
                    self._left[glob] -= 1
                return self._rules[glob]
        return NO_FAULTS
