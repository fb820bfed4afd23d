"""A Hub in a process of its own, one in the test's loop, and the official client in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent.embedded_hub.process import HubProcess
from agent.embedded_hub.repo import Repo
from agent.embedded_hub.server import EmbeddedHub
from agent.embedded_hub.standard import standard_repos

MANY = 130
Official = Callable[..., Any]


@pytest.fixture(scope="session")
def hub_process() -> Iterator[HubProcess]:
    with HubProcess("--page-size", "50", "--many", str(MANY)) as hub:
        yield hub


@pytest.fixture(scope="session")
def expected() -> dict[str, Repo]:
    """What the Hub process must hold: made again, from the same seed, in this process."""
    return {repo.id: repo for repo in standard_repos(many=MANY)}


@pytest.fixture
async def hub() -> AsyncIterator[EmbeddedHub]:
    async with EmbeddedHub(standard_repos(many=130), page_size=50) as hub:
        yield hub


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that follows nothing and unpacks nothing."""
    async with aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": "identity"}) as session:
        yield session


@pytest.fixture
def official_env(hub_process: HubProcess, tmp_path: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return kept | {
        "HOME": str(tmp_path),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": hub_process.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }


@pytest.fixture
def official(official_env: Mapping[str, str]) -> Official:
    """Runs code that has `huggingface_hub` as `hub` and `argument`, and gives what the code left in `result`."""

    def run(code: str, argument: Any = None) -> Any:
        script = "import json, sys\nimport huggingface_hub as hub\nargument = json.loads(sys.argv[1])\nresult = None\n"
        script += code + "\nprint('RESULT' + json.dumps(result))\n"
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps(argument)],
            env=dict(official_env),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.rpartition("RESULT")[2])

    return run
