"""Sizes and times as people write them: "50MB", "64 MiB", "2h", "1.5 d". The only place that reads units."""

from __future__ import annotations

import re

# As many digits as any disk or life time has: a number without end would be infinite.
_NUMBER = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*\Z", re.ASCII)
# Decimal as disks and the Hub count, binary with the i of IEC 80000-13. Either case: nobody means millibytes.
_BYTES = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "t": 10**12,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SECONDS = {
    "": 1.0,
    "ms": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "day": 86_400.0,
    "days": 86_400.0,
    "w": 7 * 86_400.0,
}


def read_bytes(text: str) -> int | None:
    """The bytes of "50MB", "50 MB/s" or "64MiB"; None where it is no size."""
    found = _NUMBER.match(re.sub(r"/s\s*\Z", "", text))
    unit = _BYTES.get(found[2].lower()) if found else None
    return round(float(found[1]) * unit) if found and unit else None


def read_seconds(text: str) -> float | None:
    """The seconds of "2h", "90 s", "500ms" or "7 days"; None where it is no time."""
    found = _NUMBER.match(text)
    unit = _SECONDS.get(found[2].lower()) if found else None
    return float(found[1]) * unit if found and unit else None
