"""olah, a mirror of the Hub that people run, between agent and Hub: every repository comes through it.

It is installed from PyPI into a virtual environment of its own, below `.cache/` of the checkout, and started as its
documentation says. `make test-olah` runs it; plain `make test` does not, since it installs a server of its own.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.ports import free_ports
from tests.harness import CHECKOUT, AgentProcess, clean_environment, wait_until
from tests.hub.process import HubProcess
from tests.hub.standard import PARTIAL
from tests.proxy.places import DEAD, sha256, wait_for_bytes

HOME = CHECKOUT / ".cache" / f"olah-{sys.version_info.major}.{sys.version_info.minor}"

# Repositories that nobody may read without a token, and a token is never sent to a mirror.
CLOSED = ("wantd/gated", "wantd/gated-closed", "wantd/private", "wantd/disabled")
# olah asks the Hub for a name with `#` in it only as far as the `#`, and is told that there is no such file.
EXCLUDED = ["*.md", "*#*"]
NOTHING = "wantd/empty"

StartAgent = Callable[..., AgentProcess]


@pytest.fixture(scope="module")
def olah_cli() -> str:
    """The program, installed once."""
    program = HOME / "bin" / "olah-cli"
    if not program.exists():
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(HOME)],
            [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "olah"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return str(program)


@pytest.fixture
def upstream() -> Iterator[HubProcess]:
    """The Hub behind the mirror. olah takes a tenth of a second for each small file: not too many of them."""
    with HubProcess("--many", "6", "--gguf-size", "6000000") as hub:
        yield hub


@pytest.fixture
def olah(olah_cli: str, upstream: HubProcess, tmp_path: Path) -> Iterator[str]:
    """A running mirror of the embedded Hub: its URL."""
    [port] = free_ports(1)
    there = f"127.0.0.1:{port}"
    hub_at, cdn_at = urlsplit(upstream.endpoint).netloc, urlsplit(upstream.cdn).netloc
    options = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--hf-scheme": "http",
        "--hf-netloc": hub_at,
        "--hf-lfs-netloc": cdn_at,
        "--mirror-netloc": there,
        "--mirror-lfs-netloc": there,
        "--repos-path": str(tmp_path / "repos"),
        "--log-path": str(tmp_path / "logs"),
    }
    log = tmp_path / "olah.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [olah_cli, *(word for option in options.items() for word in option)],
            cwd=tmp_path,
            env=clean_environment(),
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: _listens(port) or process.poll() is not None, "olah listens")
        assert process.poll() is None, log.read_text()
        yield f"http://{there}"
    finally:
        process.kill()  # it holds nothing that is needed again
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.timeout(300)
def test_every_repository_comes_through_olah(start_agent: StartAgent, upstream: HubProcess, olah: str) -> None:
    agent = start_agent(
        DEAD, proxy__url=olah, policy__allow="any", policy__formats="bin", HF_TOKEN="hf_never_to_a_mirror"
    )
    repos = upstream.repos()
    opened = [repo for repo in repos if repo not in (*CLOSED, NOTHING, PARTIAL)]
    for repo in opened:
        agent.drop(repo.replace("/", "--"), {"model": repo, "files": ["*"], "exclude": EXCLUDED})
    for repo in opened:
        name = repo.replace("/", "--")
        directory = Path(agent.ready(name, 120))
        directory = directory if directory.is_dir() else directory.parent
        listed = repos[repo]["files"]
        wanted = {file for file in listed if not any(fnmatch(file, pattern) for pattern in EXCLUDED)}
        found = {file: sha256(directory / file) for file in wanted}
        assert found == {file: listed[file]["sha256"] for file in wanted}
        answer = agent.progress(name)
        assert answer
        model = answer["models"][0]
        assert (model["source"], model["verified"]) == ("mirror", True)
        assert model["commit"] == repos[repo]["refs"]["main"]
    assert "the proxy is a mirror of the Hub" in agent.log()
    for repo in CLOSED:
        agent.drop("closed", repo)
        because = agent.wait("closed", "waiting")["waiting"]["because"]
        assert "hub: '127.0.0.1' cannot be reached: connection refused" in because["message"]
        assert "mirror: " in because["message"]
    assert not upstream.stats()["seen_tokens"]["hub"]


@pytest.mark.timeout(300)
def test_olah_goes_on_from_the_bytes_that_the_hub_gave(
    start_agent: StartAgent, make_hub: Callable[..., HubProcess], upstream: HubProcess, olah: str
) -> None:
    direct = make_hub("--many", "6", "--gguf-size", "6000000")
    direct.fault("cdn/*", max_rate=1_500_000)
    agent = start_agent(direct.endpoint, proxy__url=olah, transfer__connections=1)
    agent.drop("qwen3")
    wait_for_bytes(agent, 1_000_000)
    direct.stop()
    path = agent.ready("qwen3")
    assert sha256(path) == upstream.repos()["bartowski/Qwen_Qwen3-0.6B-GGUF"]["files"][Path(path).name]["sha256"]
    answer = agent.progress("qwen3")
    assert answer
    assert answer["models"][0]["files"][0]["source"] == "hub+mirror"
