"""`python -m agent.embedded_hub`, and the official client on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.embedded_hub.demo import FILE, REPO, demo_hub
from tests.harness import CHECKOUT
from tests.hub.official import official_environment, on_disk, run_official

FILES = {"config.json": b"{}", "sub/model.safetensors": bytes(range(256)) * 100}


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    for name, data in FILES.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    command = [sys.executable, "-m", "agent.embedded_hub", "--repo", f"own/model={tmp_path}/files"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready.keys() == {"endpoint", "cdn"}
        yield ready["endpoint"]
        process.terminate()
        assert process.wait(20) == 0


def test_the_official_client_downloads_a_directory_that_is_served(endpoint: str, tmp_path: Path) -> None:
    environment = official_environment(endpoint, tmp_path)
    assert on_disk(run_official(environment, "result = hub.snapshot_download('own/model')")) == FILES


def test_the_demo_hub_serves_its_repository_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with demo_hub(50_000, str(tmp_path / "hub")) as hub:
        environment = official_environment(hub.endpoint, tmp_path)
        path = run_official(environment, f"result = hub.hf_hub_download('{REPO}', '{FILE}')")
        data = Path(path).read_bytes()
        assert data.startswith(b"GGUF")
        assert 48_000 < len(data) <= 50_000
    assert not list((tmp_path / "hub").iterdir())
