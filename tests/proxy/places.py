"""What stands around an agent whose Hub cannot be reached: a balancer, ports that stay the same, a black hole."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.core.names import store_name
from agent.embedded_hub.repo import HubFile, Repo
from bench.ports import free_ports
from tests.harness import AgentProcess, wait_until
from tests.hub.balancer import BalancedModel, EmbeddedBalancer
from tests.hub.standard import standard_repos

GGUF_REPO = "bartowski/Qwen_Qwen3-0.6B-GGUF"
GGUF_FILE = "Qwen_Qwen3-0.6B-Q4_K_M.gguf"
SHARDED_REPO = "openai/gpt-oss-20b"
DEAD = "http://127.0.0.1:9"  # the discard port: refused at once


class Balancer:
    """An embedded balancer in a thread of its own; `it` may be looked at and changed at any time."""

    def __init__(self, *models: BalancedModel, **options: Any) -> None:
        self.it = EmbeddedBalancer(models, **({"port": free_ports(1)[0]} | options))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="balancer")

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return self.it.url

    def start(self) -> None:
        """Listen, where it listened before."""
        self._run(self.it.start())

    def stop(self) -> None:
        """Cut every connection."""
        self._run(self.it.stop())

    def asked(self) -> list[str]:
        """Method and path of every request, oldest first."""
        return [f"{seen.method} {seen.path}" for seen in list(self.it.ledger.recent)]

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


class BlackHole:
    """An address that drops packets: a listener whose queue of connections is full answers no SYN (Linux)."""

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._fill: list[socket.socket] = []
        while self._connects():
            pass
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        for one in (*self._fill, self._listener):
            one.close()

    def _connects(self) -> bool:
        one = socket.socket()
        one.settimeout(0.3)
        self._fill.append(one)
        try:
            one.connect(("127.0.0.1", self.port))
        except TimeoutError:
            return False
        return True


def the_hubs(repo: str, **arguments: Any) -> Repo:
    """A repository as an embedded Hub with the same arguments has it, byte for byte."""
    return next(found for found in standard_repos(**arguments) if found.id == repo)


def files_of(repo: Repo) -> Mapping[str, HubFile]:
    return repo.commits[repo.refs["main"]]


def balanced_gguf(repo: Repo, **more: Any) -> BalancedModel:
    """The GGUF of the catalog's qwen3 as llmlb has it: under its own name for it."""
    more = {"quantization": "Q4_K_M"} | more
    return BalancedModel("qwen3", {"model.gguf": files_of(repo)[GGUF_FILE]}, **more)


def balanced_shards(repo: Repo, *, digests: bool) -> BalancedModel:
    extra = {name: {"digest": file.sha256} for name, file in files_of(repo).items() if digests}
    return BalancedModel(store_name("gpt-oss-20b"), files_of(repo), "safetensors", extra=extra)


def write_catalog(directory: Path, *entries: dict[str, Any]) -> Path:
    path = directory / "catalog.json"
    path.write_text(json.dumps(list(entries)))
    return path


def qwen3(**more: Any) -> dict[str, Any]:
    """The entry of qwen3; give it `sha256` and its hash is binding."""
    return {"id": "qwen3", "repo": GGUF_REPO, "recommended_filename": GGUF_FILE, **more}


def shards(**more: Any) -> dict[str, Any]:
    return {"id": "gpt-oss-20b", "repo": SHARDED_REPO, "format": "safetensors", **more}


def bytes_done(agent: AgentProcess, name: str = "qwen3") -> int:
    return int((agent.progress(name) or {}).get("bytes_done") or 0)


def wait_for_bytes(agent: AgentProcess, least: int, name: str = "qwen3") -> int:
    """Wait until so many bytes of a want are there, and give how many there are."""
    try:
        wait_until(lambda: bytes_done(agent, name) > least, f"{least} bytes are there")
    except AssertionError as error:
        answer, log = agent.progress(name), agent.log()[-3000:]
        raise AssertionError(f"{error}; the answer is {answer}; the log ends:\n{log}") from None
    return bytes_done(agent, name)


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
