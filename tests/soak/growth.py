"""Whether a process grows: samples of its memory, threads and descriptors in, what has grown out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

MIB = 1024 * 1024
WARM = 0.25  # of a life: caches fill, threads start
RSS_MAX = 250 * MIB  # bytes, at any moment
# What the end of a life may have more than its beginning: the same load takes a little more or less at each moment.
RSS_SLACK = 16 * MIB
THREADS_SLACK = 4
DESCRIPTORS_SLACK = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at a moment: resident bytes, threads, open descriptors."""

    rss: int
    threads: int
    descriptors: int


def sample(pid: int) -> Sample:
    """Look at a process. Raises OSError when it is gone."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss, threads = (int(status.split(f"{key}:")[1].split()[0]) for key in ("VmRSS", "Threads"))
    return Sample(rss * 1024, threads, len(os.listdir(f"/proc/{pid}/fd")))


def ends(samples: Sequence[Sample]) -> tuple[Sample, Sample]:
    """The typical sample of the first third after warming up, and that of the last third."""
    warm = samples[int(len(samples) * WARM) :]
    third = max(len(warm) // 3, 1)
    return _typical(warm[:third]), _typical(warm[-third:])


def _typical(samples: Sequence[Sample]) -> Sample:
    return Sample(*(int(median(getattr(one, name) for one in samples)) for name in Sample.__slots__))


def grown(samples: Sequence[Sample]) -> list[str]:
    """What of the process has grown over its life, or was too much at some moment, in words."""
    before, after = ends(samples)
    found = []
    if after.rss > before.rss + RSS_SLACK:
        found.append(f"memory grew from {before.rss // MIB} to {after.rss // MIB} MiB")
    if (most := max(one.rss for one in samples)) > RSS_MAX:
        found.append(f"it took {most // MIB} MiB, more than {RSS_MAX // MIB}")
    if after.threads > before.threads + THREADS_SLACK:
        found.append(f"threads grew from {before.threads} to {after.threads}")
    if after.descriptors > before.descriptors + DESCRIPTORS_SLACK:
        found.append(f"descriptors grew from {before.descriptors} to {after.descriptors}")
    return found
