"""A spool that any user may reach, and a user who may not everything."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator

import pytest

NOBODY = 65534


@pytest.fixture
def spool() -> Iterator[str]:
    """A directory with a short path (sockets need one) that every user may enter and write to."""
    path = tempfile.mkdtemp(prefix="spool-")
    os.chmod(path, 0o777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def unprivileged() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """`with unprivileged():` the test is a user whom file permissions bind, also where it began as root."""

    @contextlib.contextmanager
    def drop() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)

    return drop


@pytest.fixture(autouse=True)
def _as_the_agent() -> Iterator[None]:
    """The agent ignores SIGIO, which comes when a writer meets its lease."""
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)
