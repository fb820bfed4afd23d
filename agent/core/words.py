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
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as every time in a progress file, lock or record."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
