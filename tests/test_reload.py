"""SIGHUP: every key of the configuration takes effect in a running agent, or is refused by name. No key is forgotten.

Each test runs a whole agent in this process, with a Hub and a store of its own, reloads it with one key changed, and
looks at what it does then. A new key fails `test_no_key_is_forgotten` until it is in `FIXED` or has a check here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from loguru import logger

from agent.app import App
from agent.cli.logs import lets_pass
from agent.config import FIXED, Config, Hook, Live
from agent.core.access import PlainHttp
from agent.core.names import RepoId, StoreName
from agent.core.progress import FileProgress
from agent.core.remote import FetchRequest, Location, Query
from agent.core.states import State
from agent.core.windows import Window
from agent.embedded_hub.repo import Repo
from agent.embedded_hub.server import EmbeddedHub
from agent.errors import Code, WantdError
from agent.jobs.board import Board
from agent.reports.systemd import Supervisor
from agent.state.job import Job
from agent.store.locks import Locks, read_holder
from tests.fakes import COMMIT, DEADLINE_S, Anywhere, eventually, logged
from tests.harness import AgentProcess, wait_until

KEYS = [
    f"{section.name}.{key.name}"
    for section in msgspec.structs.fields(Config)
    if section.name != "hook"  # tables of their own, below
    for key in msgspec.structs.fields(section.type)
]
REFUSED = [f"{section}.{key}" for section, key in FIXED]
NEVER_S = 100_000.0  # for what must not happen in a test unless a key is changed
QUERY = Query(RepoId("org/name"), "main", StoreName("name"))


class FakeHub:
    """Has one repository, whatever it is asked for, or says nothing at all; keeps what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"m-Q4_K_M.gguf": b"GGUF weights"}
        self.silent = False
        self.gated: str | bool = False
        self.asked: list[str] = []  # heads of requests
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        if self.silent:
            await reader.read()
        else:
            method, path, _ = head.split(" ", 2)
            if "/resolve/" in path:
                body = self.files[path.rpartition("/")[2]]
            else:
                body = json.dumps(self._manifest() if "/registry/" in path else self._model()).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
            writer.write(b"X-Repo-Commit: %s\r\nContent-Length: %d\r\n\r\n" % (COMMIT.encode(), len(body)))
            writer.write(body if method != "HEAD" else b"")
        writer.close()

    def _model(self) -> dict[str, Any]:
        """As the Hub tells of it."""
        known = {
            name: {"size": len(data), "lfs": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
            for name, data in self.files.items()
        }
        return {
            "sha": COMMIT,
            "gated": self.gated,
            "siblings": [{"rfilename": name, **file} for name, file in known.items()],
        }

    def _manifest(self) -> dict[str, Any]:
        """As a load balancer of an older version tells of it: without hashes."""
        return {"files": [{"name": name} for name in self.files]}


class Agent:
    """A running agent, its Hub, and its configuration."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hub = FakeHub()
        self.live = Live(Config())
        self.new = Config()
        self.app = App(self.live, {"HF_HOME": str(root)}, lambda: self.new, Supervisor(None))
        self._running: asyncio.Task[None] | None = None
        self._writes = 0

    async def start(self, **settings: Any) -> None:
        """With these settings (`section__key`), and such that nothing happens by the clock."""
        await self.hub.start()
        quiet: dict[str, Any] = {
            "spool__dir": str(self.root / "spool"),
            "store__dir": str(self.root / "models"),
            "store__hub_cache": str(self.root / "hub"),
            "adopt__caches": "none",
            "http__listen": [],
            "hub__endpoint": self.hub.url,
            "policy__allow": "any",
            "scheduler__rescan_s": NEVER_S,
            "scheduler__reap_s": NEVER_S,
            "transfer__retry_min_s": 100.0,
            "transfer__retry_max_s": 200.0,
        }
        self.live.config = self.new = self.with_keys(**quiet | settings)
        self._running = asyncio.create_task(self.app.run())
        await asyncio.wait_for(self.app.reload(), DEADLINE_S)  # which waits until it serves

    def with_keys(self, **settings: Any) -> Config:
        config = self.live.config
        for name, value in settings.items():
            section, _, key = name.partition("__")
            part = msgspec.structs.replace(getattr(config, section), **{key: value})
            config = msgspec.structs.replace(config, **{section: part})
        return config

    async def reload(self, key: str, value: Any) -> None:
        """The file says something else, and SIGHUP comes."""
        self.new = self.with_keys(**{key.replace(".", "__"): value})
        await self.app.reload()

    async def stop(self) -> None:
        self.app.stopping.set()
        if self._running:
            await asyncio.gather(self._running, return_exceptions=True)
        await self.hub.stop()

    def drop(self, name: str = "a", content: str = "org/name") -> None:
        """Write a want, or write it again."""
        self._writes += 1
        path = self.root / "spool" / f"{name}.want"
        temp = path.with_name(f".{path.name}.tmp")
        temp.write_text(content)
        temp.replace(path)

    def said(self, name: str = "a") -> dict[str, Any]:
        """What the progress file says."""
        try:
            value: dict[str, Any] = json.loads((self.root / "spool" / f"{name}.progress").read_bytes())
        except FileNotFoundError:
            return {}
        return value

    async def failed(self, name: str = "a") -> str:
        """The code of the error of a want, once it has one."""
        said = await eventually(lambda: (said := self.said(name)).get("error") and said, f"{name} has an error")
        return str(said["error"]["code"])

    async def waiting(self, what: str, name: str = "a") -> dict[str, Any]:
        """What is said of the wait, once the want waits for that."""

        def waits() -> dict[str, Any] | None:
            wait = self.said(name).get("waiting")
            return wait if wait and wait["for"] == what else None

        value: dict[str, Any] = await eventually(waits, f"{name} waits for {what}")
        return value

    async def listing_fails(self) -> WantdError:
        """How a question to the sources ends, within a time that is shorter than any default."""
        with pytest.raises(WantdError) as caught:
            await asyncio.wait_for(self.app.sources.listing(QUERY), 8)
        return caught.value

    async def locates(self) -> Location:
        """Where the file of the model is said to be."""
        listing = await self.app.sources.listing(QUERY)
        return await self.app.sources.locate(replace(QUERY, revision=listing.commit), listing.files[0].name)

    @property
    def board(self) -> Board:
        return self.app.board

    def job(self) -> Job:
        (job,) = self.board.jobs.values()
        return job


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    await agent.stop()


Check = Callable[[Agent], Awaitable[None]]
CHECKS: dict[str, Check] = {}


def takes_effect(key: str) -> Callable[[Check], Check]:
    """The function shows that the key takes effect with a reload."""

    def register(check: Check) -> Check:
        CHECKS[key] = check
        return check

    return register


def test_no_key_is_forgotten() -> None:
    assert sorted(KEYS) == sorted([*REFUSED, *CHECKS])


@pytest.mark.parametrize("key", [key for key in KEYS if key not in REFUSED])
async def test_it_takes_effect(key: str, agent: Agent) -> None:
    await CHECKS[key](agent)


@pytest.mark.parametrize("key", REFUSED)
async def test_it_is_refused_by_name(key: str, agent: Agent) -> None:
    await agent.start()
    section, name = key.split(".")
    before = getattr(getattr(agent.live.config, section), name)
    with logged("WARNING") as lines:
        await agent.reload(key, str(agent.root / "another"))
    assert lines == [f"WARNING {key} has changed; restart the agent to apply it"]
    assert getattr(getattr(agent.live.config, section), name) == before
    assert agent.app.agent_report.restart_needed == [key]
    with logged("WARNING") as lines:
        await agent.reload(key, before)
    assert lines == []
    assert agent.app.agent_report.restart_needed == []


def test_the_keys_of_a_refused_one_that_may_change_do() -> None:
    live = Live(Config())
    new = msgspec.structs.replace(
        live.config, store=msgspec.structs.replace(live.config.store, dir="/another", min_free_bytes=7)
    )
    assert live.adopt(new) == ["store.dir"]
    assert (live.config.store.dir, live.config.store.min_free_bytes) == (Config().store.dir, 7)


def test_a_running_agent_says_what_it_refuses_and_check_names_it(
    make_agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    config = tmp_path / "wantd" / "config.toml"
    config.parent.mkdir()
    agent = make_agent(XDG_CONFIG_HOME=str(tmp_path))
    config.write_text(f'[store]\ndir = "{agent.store}"\n')
    del agent.environ["WANTD_STORE__DIR"]
    with agent:
        config.write_text(f'[store]\ndir = "{tmp_path}/another"\n[log]\nlevel = "DEBUG"\n')
        os.kill(agent.pid, signal.SIGHUP)
        wait_until(lambda: "configuration reloaded" in agent.log(), "it has read the configuration again")
        assert "store.dir has changed; restart the agent to apply it" in agent.log()
        agent.environ["WANTD_STORE__DIR"] = str(agent.store)
        assert "changed but not applied: store.dir" in agent.wantd("check").stdout
        agent.drop("qwen3")
        assert agent.ready("qwen3").startswith(str(agent.store))


# [spool]


@takes_effect("spool.watch")
async def _watch(agent: Agent) -> None:
    await agent.start()
    assert not agent.app.watcher.polling
    await agent.reload("spool.watch", "poll")
    await eventually(lambda: agent.app.watcher.polling, "it polls")
    agent.drop("a")
    await eventually(agent.said, "the want is seen")
    await agent.reload("spool.watch", "auto")
    await eventually(lambda: not agent.app.watcher.polling, "it has a watch")


@takes_effect("spool.poll_interval_s")
async def _poll_interval(agent: Agent) -> None:
    await agent.start(spool__watch="poll", spool__poll_interval_s=NEVER_S)
    await agent.reload("spool.poll_interval_s", 0.02)
    agent.drop("a")
    await eventually(agent.said, "the want is seen")


@takes_effect("spool.progress_interval_s")
async def _progress_interval(agent: Agent) -> None:
    await agent.start(spool__progress_interval_s=NEVER_S)
    agent.hub.silent = True
    agent.drop("a")
    await eventually(lambda: agent.said().get("state") == "resolving", "it is resolving")
    job, file = agent.job(), FileProgress("m.gguf", 10**6)
    job.progress.begin([file], 10**6)
    for done in (1, 2):
        job.moved(file, done, State.DOWNLOADING, 0.0)
        await eventually(lambda: agent.said()["bytes_done"] == 1, "the first count is written at once")
    await agent.reload("spool.progress_interval_s", 0.02)
    await eventually(lambda: agent.said()["bytes_done"] == 2, "the second one is written")


# [store]


@takes_effect("store.keep_partials_days")
async def _keep_partials(agent: Agent) -> None:
    await agent.start()
    part = agent.root / "models/.partial" / ("ab" * 32 + ".part")
    part.write_bytes(b"half")
    os.utime(part, (1_700_000_000, agent.app.clock.now().timestamp() - 3 * 86400))
    await agent.app.upkeep.sweep()
    assert part.exists()
    await agent.reload("store.keep_partials_days", 2.0)
    await agent.app.upkeep.sweep()
    assert not part.exists()


@takes_effect("store.min_free_bytes")
async def _min_free(agent: Agent) -> None:
    await agent.start()
    await agent.reload("store.min_free_bytes", 10**18)
    agent.drop("a")
    assert await agent.failed() == Code.INSUFFICIENT_SPACE


async def _in_the_store_unwanted(agent: Agent, name: str = "old") -> Path:
    """Have a model that no want names any more; returns its directory."""
    agent.drop(name, f"org/{name}")
    await eventually(lambda: agent.said(name).get("state") == "ready", "it is ready")
    mark = agent.root / f"models/org/{name}/.wantd.used"
    await eventually(mark.exists, "its use is noted")
    (agent.root / f"spool/{name}.want").unlink()
    await agent.app.upkeep.rescan()
    await eventually(lambda: not agent.board.jobs, "it is not wanted")
    agent.hub.files = {"m-Q4_K_M.gguf": b"GGUF other weights"}  # of the next model: not linked to this one's
    return mark.parent


@takes_effect("store.max_bytes")
async def _max_bytes(agent: Agent) -> None:
    await agent.start()
    await agent.reload("store.max_bytes", 5)
    agent.drop("a")
    assert await agent.failed() == Code.INSUFFICIENT_SPACE


@takes_effect("store.evict")
async def _evict(agent: Agent) -> None:
    await agent.start()
    old = await _in_the_store_unwanted(agent)
    await agent.reload("store.max_bytes", 3 * 4096)  # a file, a record and a manifest
    agent.drop("a", "org/new")
    assert (await agent.waiting("quota"))["held_by"][0]["model"] == "org/old"
    await agent.board.resume_for_room()
    assert old.exists()
    await agent.reload("store.evict", "lru")
    await agent.board.resume_for_room()
    await eventually(lambda: agent.said().get("state") == "ready", "there is room")
    assert not old.exists()


@takes_effect("store.keep_days")
async def _keep_days(agent: Agent) -> None:
    await agent.start()
    old = await _in_the_store_unwanted(agent)

    async def tend_after_days() -> None:
        then = agent.app.clock.now().timestamp() - 3 * 86400
        for path in old.iterdir():
            os.utime(path, (then, then))
        await agent.app.upkeep.room.tend()

    await tend_after_days()
    assert old.exists()
    await agent.reload("store.keep_days", 2.0)
    async with asyncio.timeout(DEADLINE_S):
        while old.exists():  # its last use may be noted between the two steps
            await tend_after_days()


# [adopt]


def _cached(agent: Agent) -> Path:
    """The model's file in a cache of the Hub's own tools; returns the cache."""
    cache = agent.root / "their-hub"
    repo = cache / "models--org--name"
    for folder in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (repo / folder).mkdir(parents=True)
    ((name, data),) = agent.hub.files.items()
    digest = hashlib.sha256(data).hexdigest()
    (repo / "blobs" / digest).write_bytes(data)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT / name).symlink_to(f"../../blobs/{digest}")
    return cache


@takes_effect("adopt.caches")
async def _adopt_caches(agent: Agent) -> None:
    await agent.start()
    await agent.reload("adopt.caches", [str(_cached(agent))])
    agent.drop("a")
    await eventually(lambda: agent.said().get("state") == "ready", "it is brought")
    assert not any("/resolve/" in head for head in agent.hub.asked)


@takes_effect("adopt.link")
async def _adopt_link(agent: Agent) -> None:
    cache = _cached(agent)
    await agent.start(adopt__caches=[str(cache)])
    await agent.reload("adopt.link", True)
    agent.drop("a")
    said = await eventually(lambda: (said := agent.said()).get("state") == "ready" and said, "it is brought")
    (blob,) = (cache / "models--org--name/blobs").iterdir()
    assert blob.samefile(said["models"][0]["path"])


# [catalog], [policy]


@takes_effect("catalog.path")
async def _catalog(agent: Agent) -> None:
    await agent.start(policy__allow="catalog")
    agent.drop("a", "new-model")
    assert await agent.failed() == Code.MODEL_NOT_SUPPORTED
    catalog = agent.root / "catalog.json"
    catalog.write_text(json.dumps([{"id": "new-model", "repo": "org/name", "recommended_filename": "other.gguf"}]))
    await agent.reload("catalog.path", str(catalog))
    await eventually(lambda: (agent.said()["error"] or {}).get("code") == Code.FILE_NOT_FOUND, "it was looked for")


@takes_effect("policy.allow")
async def _allow(agent: Agent) -> None:
    await agent.start(policy__allow="catalog")
    agent.hub.silent = True
    agent.drop("a")
    assert await agent.failed() == Code.MODEL_NOT_SUPPORTED
    await agent.reload("policy.allow", ["org/*"])
    await eventually(lambda: agent.said()["state"] == "resolving", "it is allowed")
    await agent.reload("policy.allow", ["another/*"])
    await eventually(lambda: agent.said()["state"] == "failed", "it is not allowed")


@takes_effect("policy.formats")
async def _formats(agent: Agent) -> None:
    await agent.start()
    agent.hub.files = {"tokenizer.json": b"{}", "pytorch_model.bin": b"pickle"}
    agent.drop("a")
    assert await agent.failed() == Code.FORBIDDEN_FORMAT
    await agent.reload("policy.formats", ["bin"])
    agent.drop("a")
    await eventually(lambda: agent.said()["state"] == "ready", "it is brought")


@takes_effect("policy.code")
async def _code(agent: Agent) -> None:
    await agent.start()
    agent.hub.files = {
        "config.json": b'{"auto_map": {"AutoModel": "modeling.Model"}}',
        "model.safetensors": b"weights",
        "modeling.py": b"code",
    }
    await agent.reload("policy.code", "require")
    agent.drop("a")
    assert await agent.failed() == Code.FORBIDDEN_FORMAT
    await agent.reload("policy.code", "warn")
    agent.drop("a")
    await eventually(lambda: agent.said()["state"] == "ready", "it is brought")


@takes_effect("policy.code")
async def _code(agent: Agent) -> None:
    config = b'{"auto_map": {"AutoModel": "modeling.Own"}}'
    own = Repo.of("org/name", {"config.json": config, "modeling.py": b"pass", "model.safetensors": b"weights"})
    async with EmbeddedHub([own]) as hub:
        await agent.start(hub__endpoint=hub.endpoint, policy__code="require")
        agent.drop("a")
        assert await agent.failed() == Code.FORBIDDEN_FORMAT
        await agent.reload("policy.code", "warn")
        agent.drop("a")
        await eventually(lambda: agent.said()["state"] == "ready", "it comes without the code")
        assert agent.said()["models"][0]["skipped"] == ["modeling.py"]
        assert "code" in agent.said()["models"][0]["warning"]


@takes_effect("policy.unverified")
async def _unverified(agent: Agent) -> None:
    proxy = await _with_proxy(agent, proxy__kind="llmlb")
    await agent.reload("proxy.url", proxy.url)
    agent.drop("a")
    assert "provides no hash" in (await agent.waiting("retry"))["because"]["message"]
    await agent.reload("policy.unverified", "accept")
    agent.drop("a")
    await eventually(lambda: agent.said()["models"][0]["files"], "the file is chosen")
    await proxy.stop()


# [hub], [proxy]


@takes_effect("hub.endpoint")
async def _endpoint(agent: Agent) -> None:
    await agent.start()
    other = FakeHub()
    await other.start()
    await agent.reload("hub.endpoint", other.url)
    await agent.app.sources.listing(QUERY)
    assert (len(agent.hub.asked), len(other.asked)) == (0, 1)
    await other.stop()


@takes_effect("hub.offline")
async def _offline(agent: Agent) -> None:
    await agent.start()
    await agent.reload("hub.offline", True)
    assert (await agent.listing_fails()).code is Code.HUB_UNREACHABLE
    assert agent.hub.asked == []
    await agent.reload("hub.offline", False)
    await agent.app.sources.listing(QUERY)


@takes_effect("hub.token_path")
async def _token_path(agent: Agent) -> None:
    await agent.start()
    await agent.app.sources.listing(QUERY)
    (agent.root / "my-token").write_text("hf_mine\n")
    await agent.reload("hub.token_path", str(agent.root / "my-token"))
    await agent.app.sources.listing(QUERY)
    without, with_it = agent.hub.asked
    assert "authorization" not in without.lower()
    assert "Bearer hf_mine" in with_it


@takes_effect("hub.connect_timeout_s")
async def _connect_timeout(agent: Agent) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for other in (first, second):  # they fill its queue: whoever comes now hears nothing
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        await agent.start(hub__endpoint=f"http://127.0.0.1:{full.getsockname()[1]}", hub__connect_timeout_s=NEVER_S)
        await agent.reload("hub.connect_timeout_s", 0.05)
        assert (await agent.listing_fails()).code is Code.HUB_UNREACHABLE


@takes_effect("hub.answer_timeout_s")
async def _answer_timeout(agent: Agent) -> None:
    await agent.start(hub__answer_timeout_s=NEVER_S, hub__connect_timeout_s=1.0)
    agent.hub.silent = True
    await agent.reload("hub.answer_timeout_s", 0.05)
    assert (await agent.listing_fails()).code is Code.HUB_UNREACHABLE
    assert len(agent.hub.asked) == 1


async def _with_proxy(agent: Agent, **settings: Any) -> FakeHub:
    """An agent whose Hub is out of reach, and a proxy."""
    proxy = FakeHub()
    await proxy.start()
    await agent.start(hub__endpoint="http://127.0.0.1:9", **settings)
    return proxy


# [fleet]


@takes_effect("fleet.url")
async def _fleet_url(agent: Agent) -> None:
    await agent.start()
    door = await _with_door()
    assert (await agent.locates()).source == "hub"
    await agent.reload("fleet.url", door.url)
    assert (await agent.locates()).source == "fleet"
    await door.stop()


@takes_effect("fleet.listings")
async def _fleet_listings(agent: Agent) -> None:
    door = await _with_door()
    await agent.start(fleet__url=door.url)
    await agent.app.sources.listing(QUERY)
    assert len(agent.hub.asked) == 1
    await agent.reload("fleet.listings", True)
    await agent.app.sources.listing(QUERY)
    assert (len(agent.hub.asked), len(door.asked)) == (1, 1)
    await door.stop()


@takes_effect("fleet.gated")
async def _fleet_gated(agent: Agent) -> None:
    door = await _with_door()
    agent.hub.gated = "manual"
    await agent.start(fleet__url=door.url)
    assert (await agent.locates()).source == "hub"
    await agent.reload("fleet.gated", True)
    assert (await agent.locates()).source == "fleet"
    await door.stop()


@takes_effect("fleet.patience_s")
async def _fleet_patience(agent: Agent) -> None:
    door = await _with_door()
    await door.stop()
    await agent.start(fleet__url=door.url, fleet__patience_s=NEVER_S)
    await agent.reload("fleet.patience_s", 0.0)
    assert (await asyncio.wait_for(agent.locates(), DEADLINE_S)).source == "hub"


@takes_effect("fleet.slice_bytes")
async def _slice_bytes(agent: Agent) -> None:
    await agent.start(fleet__url="http://127.0.0.1:9", fleet__patience_s=0.0)
    await agent.reload("fleet.slice_bytes", 2 * 1024 * 1024)
    assert agent.app.files.slice_bytes() == 2 * 1024 * 1024
    await agent.reload("fleet.url", "")
    assert agent.app.files.slice_bytes() == 0


async def _with_door() -> FakeHub:
    door = FakeHub()
    await door.start()
    return door


@takes_effect("proxy.url")
async def _proxy_url(agent: Agent) -> None:
    proxy = await _with_proxy(agent, proxy__kind="hub")
    assert (await agent.listing_fails()).code is Code.HUB_UNREACHABLE
    await agent.reload("proxy.url", proxy.url)
    assert (await agent.app.sources.listing(QUERY)).source == "mirror"
    await proxy.stop()


@takes_effect("proxy.kind")
async def _proxy_kind(agent: Agent) -> None:
    proxy = await _with_proxy(agent, proxy__kind="llmlb")
    await agent.reload("proxy.url", proxy.url)
    assert (await agent.app.sources.listing(QUERY)).source == "llmlb"
    await agent.reload("proxy.kind", "hub")
    assert (await agent.app.sources.listing(QUERY)).source == "mirror"
    await proxy.stop()


@takes_effect("proxy.report")
async def _report(agent: Agent) -> None:
    proxy = await _with_proxy(agent)
    await agent.reload("proxy.url", proxy.url)
    await agent.app.sources.report({})
    assert proxy.asked == []
    await agent.reload("proxy.report", True)
    await agent.app.sources.report({})
    assert proxy.asked[-1].startswith("POST /api/models/sync-state ")
    await proxy.stop()


@takes_effect("proxy.report_url")
async def _report_url(agent: Agent) -> None:
    proxy = await _with_proxy(agent, proxy__report=True)
    await agent.reload("proxy.report_url", f"{proxy.url}/elsewhere")
    await agent.app.sources.report({})
    assert proxy.asked[-1].startswith("POST /elsewhere ")
    await proxy.stop()


# [transfer]


class FakeStorage:
    """A slow server of files: so many bytes of each, then it waits to be let go. Counts who is connected."""

    def __init__(self, size: int, first: int) -> None:
        self.data = bytes(size)
        self.first = first
        self.go = asyncio.Event()
        self.open = 0
        self.asked = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/file"

    async def stop(self) -> None:
        self.go.set()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                self.asked += 1
                begin, end = head.partition("range: bytes=")[2].partition("\r")[0].split("-")
                body = self.data[int(begin) : int(end) + 1]
                writer.write(b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n" % len(body))
                writer.write(b"Content-Range: bytes %s-%s/%d\r\n\r\n" % (begin.encode(), end.encode(), len(self.data)))
                writer.write(body[: self.first])
                await writer.drain()
                await self.go.wait()
                writer.write(body[self.first :])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    def fetch(self, agent: Agent, name: str = "file") -> asyncio.Task[Any]:
        """Let the agent's engine fetch it."""
        part = str(agent.root / name)
        request = FetchRequest(name, part, f"{part}.json", len(self.data), hashlib.sha256(self.data).hexdigest())

        async def locate(_: WantdError | None) -> Location:
            return Location("hub", PlainHttp(self.url, Anywhere()))

        return asyncio.create_task(agent.app.engine.fetch(request, locate, lambda *_: None))  # type: ignore[arg-type]


MIB = 1024 * 1024


@takes_effect("transfer.connections")
async def _connections(agent: Agent) -> None:
    storage = FakeStorage(64 * MIB, 0)
    await storage.start()
    await agent.start(transfer__connections=1)
    fetch = storage.fetch(agent)
    await eventually(lambda: storage.asked == 1, "one connection is used")
    await agent.reload("transfer.connections", 2)
    await eventually(lambda: storage.open == 2, "two are used")
    fetch.cancel()
    await asyncio.gather(fetch, return_exceptions=True)
    await storage.stop()


@takes_effect("transfer.connections_per_host")
async def _connections_per_host(agent: Agent) -> None:
    storage = FakeStorage(64 * MIB, 0)
    await storage.start()
    await agent.start(transfer__connections_per_host=1)
    fetch = storage.fetch(agent)
    await eventually(lambda: storage.asked == 1, "one connection is used")
    await agent.reload("transfer.connections_per_host", 2)
    await eventually(lambda: storage.open == 2, "two are used")
    fetch.cancel()
    await asyncio.gather(fetch, return_exceptions=True)
    await storage.stop()


@takes_effect("transfer.max_rate")
async def _max_rate(agent: Agent) -> None:
    storage = FakeStorage(8 * MIB, 8 * MIB)
    storage.go.set()
    await storage.start()
    await agent.start(transfer__max_rate=1024)
    fetch = storage.fetch(agent)
    await eventually(lambda: storage.asked, "it has begun")
    assert not fetch.done()
    await agent.reload("transfer.max_rate", 0)
    await asyncio.wait_for(fetch, 30)
    await storage.stop()


@takes_effect("transfer.window")
async def _window(agent: Agent) -> None:
    await agent.start()
    await agent.reload("transfer.window", [Window(max_rate=0)])
    agent.drop("a")
    await agent.waiting("window")
    await agent.reload("transfer.window", [])
    await eventually(lambda: agent.said()["state"] == "ready", "it is brought")


@takes_effect("policy.urgent")
async def _urgent(agent: Agent) -> None:
    await agent.start(transfer__window=[Window(max_rate=0)])
    agent.drop("a", '{"model": "org/name", "urgent": true}')
    await agent.waiting("window")
    await agent.reload("policy.urgent", True)
    await eventually(lambda: agent.said()["state"] == "ready", "it is brought")


async def test_a_hook_that_is_added_takes_effect(agent: Agent, tmp_path: Path) -> None:
    await agent.start()
    agent.drop("a")
    await eventually(lambda: agent.said().get("state") == "ready", "it is brought")
    out = tmp_path / "heard"
    agent.new = msgspec.structs.replace(agent.live.config, hook=[Hook(exec=["/bin/sh", "-c", f"cat > {out}"])])
    await agent.app.reload()
    await eventually(lambda: out.exists() and out.read_text(), "the hook was run")
    assert json.loads(out.read_text())["state"] == "ready"


@takes_effect("transfer.stall_timeout_s")
async def _stall_timeout(agent: Agent) -> None:
    storage = FakeStorage(2 * MIB, 0)
    await storage.start()
    await agent.start(transfer__stall_timeout_s=NEVER_S, transfer__retry_min_s=0.01, transfer__retry_max_s=0.02)
    await agent.reload("transfer.stall_timeout_s", 0.1)
    fetch = storage.fetch(agent)
    await eventually(lambda: storage.asked > 4, "silent connections are replaced")
    storage.go.set()
    await asyncio.gather(fetch, return_exceptions=True)
    await storage.stop()


@takes_effect("transfer.jobs")
async def _jobs(agent: Agent) -> None:
    await agent.start(transfer__jobs=1)
    inside: list[int] = []
    leave = asyncio.Event()

    async def enter(number: int) -> None:
        async with agent.app.upkeep.slots[1].place(lambda: 5, lambda: None):
            inside.append(number)
            await leave.wait()

    tasks = [asyncio.create_task(enter(number)) for number in range(2)]
    await eventually(lambda: inside == [0], "there is one place")
    await agent.reload("transfer.jobs", 2)
    await eventually(lambda: inside == [0, 1], "there are two")
    leave.set()
    await asyncio.gather(*tasks)


async def _pause_s(agent: Agent) -> float:
    """Seconds that a want waits after its first fault."""
    agent.drop("a")
    wait = await agent.waiting("retry")
    return (datetime.fromisoformat(wait["until"]) - agent.app.clock.now()).total_seconds()


@takes_effect("transfer.retry_min_s")
async def _retry_min(agent: Agent) -> None:
    await agent.start(hub__endpoint="http://127.0.0.1:9", transfer__retry_min_s=1.0, transfer__retry_max_s=1000.0)
    await agent.reload("transfer.retry_min_s", 500.0)
    assert 450 < await _pause_s(agent) < 1001


@takes_effect("transfer.retry_max_s")
async def _retry_max(agent: Agent) -> None:
    await agent.start(hub__endpoint="http://127.0.0.1:9", transfer__retry_min_s=10_000.0, transfer__retry_max_s=1e8)
    await agent.reload("transfer.retry_max_s", 10_001.0)
    assert await _pause_s(agent) < 10_002


# [locks], [scheduler], [log]


@takes_effect("locks.wait_timeout_s")
async def _wait_timeout(agent: Agent) -> None:
    await agent.start(locks__wait_timeout_s=NEVER_S)
    held = Locks().try_acquire(agent.app.layout.model_lock(StoreName("org/name")))
    assert held is not None
    agent.drop("a")
    await agent.waiting("lock")
    await agent.reload("locks.wait_timeout_s", 0.1)
    wait = await agent.waiting("retry")
    assert wait["because"]["code"] == Code.LOCK_TIMEOUT
    held.release()


@takes_effect("locks.heartbeat_s")
async def _heartbeat(agent: Agent) -> None:
    await agent.start(locks__heartbeat_s=NEVER_S)
    path = f"{agent.app.layout.locks}/test.lock"
    lock = agent.app.upkeep.locks.try_acquire(path)
    assert lock is not None
    before = read_holder(path)
    await agent.reload("locks.heartbeat_s", 0.05)
    await eventually(lambda: read_holder(path) != before, "there is another heartbeat")
    lock.release()


@takes_effect("scheduler.rescan_s")
async def _rescan(agent: Agent) -> None:
    await agent.start()
    agent.hub.silent = True
    agent.drop("a")
    await eventually(agent.said, "it is answered")
    await agent.reload("scheduler.rescan_s", 0.1)
    for _ in range(3):  # the reload itself looks once
        (agent.root / "spool/a.progress").unlink()
        await eventually(agent.said, "it is answered again")


@takes_effect("scheduler.reap_s")
async def _reap(agent: Agent) -> None:
    await agent.start()
    await agent.app.upkeep.reap()
    left = Path(agent.app.layout.locks) / "left.lock"
    await agent.reload("scheduler.reap_s", 0.1)
    for _ in range(2):
        left.touch()
        await eventually(lambda: not left.exists(), "what a crash left is cleared")


async def _asked(agent: Agent, **headers: str) -> int:
    """The status of a response of the agent's own HTTP interface."""
    assert agent.app.face
    url = f"{agent.app.face.listening[0]}/v1/status"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        return response.status


@takes_effect("http.hosts")
async def _hosts(agent: Agent) -> None:
    await agent.start(http__listen=["127.0.0.1:0"])
    assert await _asked(agent, Host="gpu.example") == 403
    await agent.reload("http.hosts", ["gpu.example"])
    assert await _asked(agent, Host="gpu.example") == 200


@takes_effect("http.token_file")
async def _token_file(agent: Agent) -> None:
    await agent.start(http__listen=["127.0.0.1:0"])
    assert await _asked(agent) == 200
    (agent.root / "token").write_text("secret\n")
    await agent.reload("http.token_file", str(agent.root / "token"))
    assert await _asked(agent) == 401
    assert await _asked(agent, Authorization="Bearer wrong") == 401
    assert await _asked(agent, Authorization="Bearer secret") == 200


async def _served(agent: Agent) -> int:
    """The status of a published model's document, at the agent as a Hub."""
    assert agent.app.face
    url = f"{agent.app.face.listening[0]}/api/models/org/name"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def _publish(agent: Agent) -> None:
    await agent.start(http__listen=["127.0.0.1:0"])
    agent.drop()
    await eventually(lambda: agent.said().get("state") == "ready", "it is published")


@takes_effect("http.hub")
async def _http_hub(agent: Agent) -> None:
    await _publish(agent)
    assert await _served(agent) == 200
    await agent.reload("http.hub", "off")
    assert await _served(agent) == 404


@takes_effect("http.serve_gated")
async def _serve_gated(agent: Agent) -> None:
    agent.hub.gated = True
    await _publish(agent)
    assert await _served(agent) == 401
    await agent.reload("http.serve_gated", True)
    assert await _served(agent) == 200


@takes_effect("log.level")
async def _log_level(agent: Agent) -> None:
    await agent.start(log__level="ERROR")
    lines: list[str] = []
    number = logger.add(lambda line: lines.append(str(line)), filter=lets_pass(lambda: agent.live.config.log, "text"))
    logger.info("one")
    await agent.reload("log.level", "DEBUG")
    logger.info("two")
    logger.remove(number)
    assert not any("one" in line for line in lines)
    assert any("two" in line for line in lines)


@takes_effect("log.format")
async def _log_format(agent: Agent) -> None:
    await agent.start()
    lines: list[str] = []
    number = logger.add(lambda line: lines.append(str(line)), filter=lets_pass(lambda: agent.live.config.log, "json"))
    logger.info("one")
    await agent.reload("log.format", "json")
    logger.info("two")
    logger.remove(number)
    assert not any("one" in line for line in lines)
    assert any("two" in line for line in lines)
