"""The mark of a model's last use: an empty file beside its record, whose time is when it was last wanted or leased."""

from __future__ import annotations

import contextlib
import os

from agent.store.layout import RECORD, USED


def mark(directory: str, now: float) -> None:
    """Note that the model in `directory` is in use at `now`, in seconds since the epoch.

    Does nothing without a model. What the disk refuses costs a younger time of use, and is passed over.
    """
    with contextlib.suppress(OSError):
        if not os.path.lexists(f"{directory}/{RECORD}"):
            return
        fd = os.open(f"{directory}/{USED}", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.utime(fd, (now, now))
        finally:
            os.close(fd)
