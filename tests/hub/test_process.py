"""The Hub as a process of its own: started, steered and ended from plain synchronous code."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.hub.process import HubProcess

ROOT = str(Path(__file__).parents[2])


def get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        return bytes(answer.read())


def test_a_hub_process_is_steered_by_its_control_face(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.gguf").write_bytes(b"weights" * 1000)
    with HubProcess("--no-standard", "--repo", f"own/dir={tmp_path}") as hub:
        file = f"{hub.endpoint}/own/dir/resolve/main/sub/a.gguf"
        assert get(file) == b"weights" * 1000
        assert hub.stats()["bytes_sent"] == {"own/dir/sub/a.gguf": 7000}
        hub.reset()
        assert hub.stats()["recent"] == []
        hub.fault("cdn/*", flip_at=0)
        assert get(file)[0] == ord("w") ^ 0xFF
        hub.clear_faults()
        commit = hub.commit("own/dir", {"sub/a.gguf": b"changed"})
        assert get(file) == b"changed"
        described = hub.repos()["own/dir"]
        assert described["refs"]["main"] == commit
        assert described["files"]["sub/a.gguf"]["sha256"] == hashlib.sha256(b"changed").hexdigest()
        hub.commit("own/new", {"README.md": b"hello"})
        assert get(f"{hub.endpoint}/own/new/resolve/main/README.md") == b"hello"
        hub.configure(url_lifetime_s=0)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(file)
        hub.restore_options()
        assert get(file) == b"changed"
        hub.expire_urls()


def test_a_model_of_some_megabytes_is_served_whole() -> None:
    with HubProcess("--gguf-size", "6000000", "--many", "1") as hub:
        repo, name = "bartowski/Qwen_Qwen3-0.6B-GGUF", "Qwen_Qwen3-0.6B-Q4_K_M.gguf"
        data = get(f"{hub.endpoint}/{repo}/resolve/main/{name}")
        assert hashlib.sha256(data).hexdigest() == hub.repos()[repo]["files"][name]["sha256"]
        assert len(data) > 5_900_000


def test_another_server_can_stand_in_for_the_cdn() -> None:
    with HubProcess("--many", "1", "--cdn-base", "http://127.0.0.1:9/models/") as hub:
        connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"), timeout=30)
        connection.request("HEAD", "/Qwen/Qwen3-0.6B/resolve/main/model.safetensors")
        location = connection.getresponse().headers["Location"]
        connection.close()
    assert location == "http://127.0.0.1:9/models/Qwen/Qwen3-0.6B/model.safetensors"


def test_a_hub_ends_with_the_process_that_started_it() -> None:
    code = (
        "import os, sys\nfrom tests.hub.process import HubProcess\n"
        "hub = HubProcess('--no-standard')\nhub.start()\nprint(hub.pid, flush=True)\nos._exit(1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and is_running(pid):
        time.sleep(0.02)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_the_ready_line_is_one_json_object() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.hub", "--no-standard"],
        cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()).keys() == {"endpoint", "cdn", "control"}
        process.terminate()
        assert process.wait(20) == 0
