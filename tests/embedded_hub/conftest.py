"""An embedded Hub in the test's loop, with a repository of each kind of file."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from agent.embedded_hub.repo import Repo
from agent.embedded_hub.server import EmbeddedHub

REPO = "org/model"
WEIGHTS = "model.safetensors"
FILES: dict[str, bytes | str] = {
    "README.md": "# A model",
    "config.json": '{"hidden_size": 256}',
    "original/params.json": "{}",
    "original/consolidated.pth": bytes(range(256)) * 4,
    WEIGHTS: bytes(range(256)) * 100,
    "vocab.json": '{"token": 1}' * 100,
}


def content(name: str) -> bytes:
    """What the repository's file holds."""
    held = FILES[name]
    return held.encode() if isinstance(held, str) else held


@pytest.fixture
def repo() -> Repo:
    repo = Repo.of(REPO, FILES, former_ids=("org/old-name",))
    repo.refs["refs/tags/v1.0"] = repo.refs["main"]
    repo.commit({"README.md": "proposed"}, "refs/pr/1")
    repo.commit({"README.md": "aside"}, "dev")
    return repo


@pytest.fixture
async def hub(repo: Repo) -> AsyncIterator[EmbeddedHub]:
    async with EmbeddedHub([repo]) as hub:
        yield hub


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that unpacks nothing."""
    async with aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}) as session:
        yield session
