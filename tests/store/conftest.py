"""A store of one's own, and processes that are quick to start."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from agent.store.layout import Layout
from tests.store.builders import make_layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(str(tmp_path / "models"))


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Makes real processes, forked from a clean one that has loaded what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.store.children", "pytest"])
    return context


@pytest.fixture
def elsewhere(layout: Layout) -> Iterator[str]:
    """A directory on another file system than the store's."""
    shared = "/dev/shm"
    if not os.path.isdir(shared) or os.stat(shared).st_dev == os.stat(layout.root).st_dev:
        pytest.skip("there is no second file system to write to")
    path = tempfile.mkdtemp(prefix="wantd-", dir=shared)
    yield path
    shutil.rmtree(path)
