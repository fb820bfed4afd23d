"""What other programs of the host have is taken and not downloaded; an agent process, and the Hub counts the bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import AgentProcess, clean_environment, wait_until
from tests.hub.process import HubProcess

GGUF = "bartowski/Qwen_Qwen3-0.6B-GGUF"
FILE = "Qwen_Qwen3-0.6B-Q4_K_M.gguf"
SHARDED = "openai/gpt-oss-20b"
QWEN = "Qwen/Qwen3-0.6B"
ONE_BY_ONE = "import sys, huggingface_hub\nfor name in sys.argv[2:]: huggingface_hub.hf_hub_download(sys.argv[1], name)"
SNAPSHOT = (
    "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1], allow_patterns=sys.argv[2:] or None)"
)


def hub_cache(home: Path, hub: HubProcess, repo: str, *patterns: str, code: str = SNAPSHOT) -> Path:
    """A cache that huggingface_hub itself has written, in the usual place of this home."""
    environ = clean_environment(HOME=str(home), HF_ENDPOINT=hub.endpoint, HF_HUB_DISABLE_XET="1")
    subprocess.run([sys.executable, "-c", code, repo, *patterns], env=environ, check=True, timeout=60)
    hub.reset()
    return home / ".cache/huggingface/hub"


def weights(home: Path, hub: HubProcess) -> bytes:
    """The GGUF's bytes, which the machine got in some other way."""
    cache = hub_cache(home / "elsewhere", hub, GGUF, FILE)
    return next(cache.rglob(FILE)).read_bytes()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def state_of(folder: Path) -> dict[str, Any]:
    """Everything in a directory: kind, mode, owner, mtime, hash."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what = os.readlink(path) if path.is_symlink() else None
        if path.is_file() and not path.is_symlink():
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path)] = (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_ino, what)
    return found


def sent(hub: HubProcess, *suffixes: str) -> int:
    """Bytes of weights that the Hub has sent."""
    return sum(
        count
        for name, count in hub.stats()["bytes_sent"].items()
        if name.endswith(suffixes or (".gguf", ".safetensors"))
    )


PLACES: dict[str, Callable[[bytes], str]] = {
    "ollama": lambda data: f".ollama/models/blobs/sha256-{hashlib.sha256(data).hexdigest()}",
    "llama.cpp": lambda data: f".cache/llama.cpp/{GGUF.replace('/', '_')}_{FILE}",
    "lmstudio": lambda data: f".lmstudio/models/{GGUF}/{FILE}",
    "hub": lambda data: f".cache/huggingface/hub/models--someone--else/blobs/{hashlib.sha256(data).hexdigest()}",
}


@pytest.mark.parametrize("cache", PLACES)
def test_what_a_program_has_is_taken_and_not_one_byte_is_fetched(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, tmp_path: Path, cache: str
) -> None:
    agent = make_agent()
    data = weights(tmp_path, hub)
    theirs = put(agent.root / PLACES[cache](data), data)
    before = state_of(theirs.parent)
    with agent:
        agent.drop("qwen3", "qwen3")
        path = Path(agent.ready("qwen3"))
        assert path.read_bytes() == data
        assert sent(hub) == 0
        answer = agent.progress("qwen3")
        assert answer
        assert answer["models"][0]["source"] == f"adopted:{cache}"
        record = json.loads((path.parent / ".wantd.json").read_bytes())
        assert (record["source"], record["files"][0]["source"]) == (f"adopted:{cache}", f"adopted:{cache}")
        assert os.stat(path).st_ino != theirs.stat().st_ino
        assert state_of(theirs.parent) == before
        assert list((agent.store / ".partial").iterdir()) == []


def test_a_sharded_model_comes_from_the_cache_that_the_hubs_own_library_wrote(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    agent = make_agent()
    cache = hub_cache(agent.root, hub, SHARDED)
    before = state_of(cache)
    with agent:
        agent.drop("x", "gpt-oss-20b")
        folder = Path(agent.ready("x"))
        assert sum(hub.stats()["bytes_sent"].values()) == 0
        assert json.loads((folder / ".wantd.json").read_bytes())["source"] == "adopted:hub"
    assert state_of(cache) == before


@pytest.mark.parametrize("way", ["offline", "gone"])
@pytest.mark.parametrize(("model", "repo"), [("qwen3", GGUF), ("gpt-oss-20b", SHARDED)])
def test_with_the_hub_out_of_reach_its_cache_answers(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, way: str, model: str, repo: str
) -> None:
    agent = make_agent()
    cache = hub_cache(agent.root, hub, repo)
    before = state_of(cache)
    agent.set(**({"hub__offline": "true"} if way == "offline" else {"HF_ENDPOINT": "http://127.0.0.1:9"}))
    with agent:
        agent.drop("x", model)
        folder = Path(agent.ready("x"))
        folder = folder if folder.is_dir() else folder.parent
        record = json.loads((folder / ".wantd.json").read_bytes())
        assert record["source"] == "adopted:hub"
        assert record["commit"] == hub.repos()[repo]["refs"]["main"]
    assert hub.stats()["recent"] == []
    assert state_of(cache) == before


def test_what_the_cache_lacks_waits_for_the_hub(make_agent: Callable[..., AgentProcess], hub: HubProcess) -> None:
    agent = make_agent(HF_ENDPOINT="http://127.0.0.1:9")
    hub_cache(agent.root, hub, GGUF, "README.md")
    with agent:
        agent.drop("x", "qwen3")
        answer = agent.wait("x", "waiting")
        assert "127.0.0.1" in json.dumps(answer)


def in_part(make_agent: Callable[..., AgentProcess], hub: HubProcess, *left_out: str) -> AgentProcess:
    """An agent whose Hub is down, beside a cache into which a library has fetched file by file, but for some."""
    agent = make_agent(policy__allow="any", scheduler__rescan_s=0.5)
    names = [name for name in hub.repos()[QWEN]["files"] if name not in left_out]
    hub_cache(agent.root, hub, QWEN, *names, code=ONE_BY_ONE)
    hub.fault("hub/*", status=503)
    return agent


def test_a_model_without_its_tokenizer_in_the_cache_waits_for_the_hub(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    with in_part(make_agent, hub, "tokenizer.json", "vocab.json", "merges.txt") as agent:
        agent.drop("x", QWEN)
        answer = agent.wait("x", "waiting")
        assert answer["waiting"]["for"] == "retry"
        assert "adopted:hub may lack files of it: the tokenizer" in answer["waiting"]["because"]["message"]
        hub.clear_faults()
        os.utime(agent.spool / "x.want")
        folder = Path(agent.ready("x"))
        assert (folder / "tokenizer.json").exists()
        assert sent(hub, ".safetensors") == 0


def test_what_the_cache_lacks_of_a_model_that_loads_without_it_comes_when_the_hub_is_back(
    make_agent: Callable[..., AgentProcess], hub: HubProcess
) -> None:
    with in_part(make_agent, hub, "README.md", "generation_config.json") as agent:
        agent.drop("x", QWEN)
        folder = Path(agent.ready("x"))
        assert not (folder / "README.md").exists()
        (model,) = (agent.progress("x") or {})["models"]
        assert "it lists only what was downloaded into it" in model["warning"]
        weights = (folder / "model.safetensors").stat().st_ino
        hub.clear_faults()
        wait_until((folder / "README.md").exists, "what was missing is there")
        wait_until(lambda: (agent.progress("x") or {})["state"] == "ready", "ready again")
        (model,) = (agent.progress("x") or {})["models"]
        assert "warning" not in model
        assert json.loads((folder / ".wantd.json").read_bytes())["provisional"] is False
        assert (folder / "model.safetensors").stat().st_ino == weights
        assert sent(hub, ".safetensors") == 0


@pytest.mark.parametrize("cache", PLACES)
def test_one_flipped_byte_is_said_and_fetched(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, tmp_path: Path, cache: str
) -> None:
    agent = make_agent()
    data = weights(tmp_path, hub)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    theirs = put(agent.root / PLACES[cache](data), bytes(flipped))
    before = state_of(theirs.parent)
    with agent:
        agent.drop("qwen3", "qwen3")
        path = Path(agent.ready("qwen3"))
        assert path.read_bytes() == data
        assert sent(hub) >= len(data)
        assert json.loads((path.parent / ".wantd.json").read_bytes())["source"] == "hub"
        line = next(line for line in agent.log().splitlines() if "not adopting" in line)
        assert str(theirs) in line
        assert "its hash is" in line
        assert state_of(theirs.parent) == before


def test_a_hard_link_only_where_it_is_asked_for(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, tmp_path: Path
) -> None:
    agent = make_agent(adopt__link="true")
    data = weights(tmp_path, hub)
    theirs = put(agent.root / PLACES["ollama"](data), data)
    theirs.chmod(0o644)
    with agent:
        agent.drop("qwen3", "qwen3")
        path = Path(agent.ready("qwen3"))
        assert os.path.samefile(path, theirs)
        assert theirs.read_bytes() == data
        assert list((agent.store / ".partial").iterdir()) == []


def test_the_settings_take_effect_without_a_restart(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, tmp_path: Path
) -> None:
    agent = make_agent()
    config = tmp_path / "home/wantd/config.toml"
    put(config, b'[adopt]\ncaches = "none"\n')
    agent.set(XDG_CONFIG_HOME=str(tmp_path / "home"))
    data = weights(tmp_path, hub)
    put(tmp_path / "other" / f"{GGUF.replace('/', '_')}_{FILE}", data)
    with agent:
        config.write_text(f'[adopt]\ncaches = ["{tmp_path}/other"]\n')
        assert agent.process
        agent.process.send_signal(1)
        wait_until(lambda: "reload" in agent.log(), "the agent has reloaded")
        agent.drop("qwen3", "qwen3")
        agent.ready("qwen3")
        assert sent(hub) == 0


def test_check_lists_what_it_found_where(
    make_agent: Callable[..., AgentProcess], hub: HubProcess, tmp_path: Path
) -> None:
    agent = make_agent()
    data = weights(tmp_path, hub)
    put(agent.root / PLACES["ollama"](data), data)
    put(agent.root / PLACES["lmstudio"](data), data)
    text = agent.wantd("check", "--no-network").stdout
    assert f"ollama cache {agent.root}/.ollama/models: 1 file, 6.0 MB" in text, text
    assert f"lmstudio cache {agent.root}/.lmstudio/models: 1 file, 6.0 MB" in text, text
