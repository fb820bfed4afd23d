"""Numbers as people read them: sizes and times."""

from __future__ import annotations

from datetime import UTC, datetime


def size(count: float | None) -> str:
    """Bytes in decimal units, as disks and the Hub count them."""
    if count is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def duration(seconds: float | None) -> str:
    """A time left, short."""
    if seconds is None:
        return "?"
    seconds = int(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 2 * 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as every time in a progress file, lock or record."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shorten(text: str, width: int, cut: str = "…") -> str:
    """At most `width` characters of a line, its middle cut out: both ends of a model's name tell models apart."""
    if len(text) <= width:
        return text
    room = width - len(cut)
    if room < 2:
        return text[:width]
    return text[: (room + 1) // 2] + cut + text[len(text) - room // 2 :]
