"""A runner with all its parts, over a real store in a directory of the test, a source and a transfer that are not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from agent.config import Config, Policy, Store
from agent.core.names import SafeName
from agent.core.remote import RemoteFile
from agent.core.target import Target
from agent.jobs.files import Files
from agent.jobs.lock_waits import LockWaits
from agent.jobs.planner import Planner
from agent.jobs.proving import Proving
from agent.jobs.revisit import Revisit
from agent.jobs.room import Room
from agent.jobs.run import Run
from agent.jobs.runner import Runner
from agent.jobs.slots import Slots
from agent.jobs.windows import Windows
from agent.state.feed import Feed
from agent.state.job import Job
from agent.store.hub_view import HubView
from agent.store.inventory import Inventory
from agent.store.layout import Published
from agent.store.locks import Locks
from agent.store.room.removal import Remover
from agent.store.space import Space
from tests.fakes import FakeClock, FakeDisk, FakeSource, FakeTransfer, Inline, target
from tests.store.builders import ENDPOINT, MODES, make_layout, sha256

GGUF = {"m-Q4_K_M.gguf": b"GGUF weights", "picture.png": b"hello"}
SAFETENSORS = {"generation_config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"[]"}


class Workshop:
    """Everything that a run needs. `contents` are the files of the repository of every model."""

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        asyncio.get_running_loop().set_default_executor(Inline())
        self.layout = make_layout(str(folder / "models"))
        self.source = FakeSource()
        self.transfer = FakeTransfer(dict(contents))
        self.clock = FakeClock()
        self.feed = Feed()
        self.policy = Policy()
        self.config = Config()
        self.disk = FakeDisk(10**8)
        self.places = 4
        self.locks = Locks()
        self.inventory = Inventory(self.layout)
        self.view = HubView(f"{os.path.dirname(self.layout.root)}/hub", self.layout, self.inventory, MODES)
        self.space = Space(self.layout.root, lambda: 0, self.disk.statvfs, lambda: self.store.max_bytes)
        self.store = Store()
        self.jobs: dict[Target, Job] = {}
        self.room = Room(
            layout=self.layout,
            inventory=self.inventory,
            space=self.space,
            remover=Remover(self.layout, self.locks, self.inventory, self.view, grace_s=0.0),
            clock=self.clock,
            jobs=self.jobs,
            config=lambda: self.store,
            tell=self.feed.changed,
        )
        self.slots = Slots(lambda: self.places, self.clock.monotonic)
        self.waits = LockWaits(self.locks, lambda: 300.0, self.clock)
        self.proving = Proving(self.layout, self.inventory, Inline())
        self.files = Files(
            self.source,
            self.transfer,
            self.layout,
            self.inventory,
            self.space,
            self.waits,
            self.clock,
            self.proving,
        )
        planner = Planner(self.source, self.files, lambda: self.policy)
        self.revisit = Revisit(self.layout, planner, self.clock)
        self.runner = Runner(
            planner=planner,
            revisit=self.revisit,
            files=self.files,
            layout=self.layout,
            inventory=self.inventory,
            view=self.view,
            room=self.room,
            windows=Windows(lambda: self.config, self.clock),
            planning=Slots(lambda: 16, self.clock.monotonic),
            slots=self.slots,
            waits=self.waits,
            clock=self.clock,
            modes=MODES,
            endpoint=lambda: ENDPOINT,
            agent="wantd on gpu-7",
        )

    def remote(self, name: str, *, hashed: bool = True) -> RemoteFile:
        """A file as the source lists it."""
        data = self.transfer.contents[name]
        return RemoteFile(SafeName(name), len(data), sha256(data) if hashed else None)

    def lists(self, name: str = "qwen3", *, hashed: bool = True, **more: Any) -> None:
        """The source has the repository of this model, with all contents."""
        files = [self.remote(file, hashed=hashed) for file in self.transfer.contents]
        self.source.lists(f"org/{name}", *files, **more)

    def job(self, name: str = "qwen3", **selection: Any) -> Job:
        """A job for a model that the source lists."""
        if f"org/{name}" not in self.source.listings:
            self.lists(name)
        return Job(target(name, **selection), self.feed)

    async def run(self, job: Job) -> Published:
        """One whole run of the job."""
        return await self.runner.run(Run(job))
