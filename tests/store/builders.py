"""Models to publish: their files are in the store's `.partial`, as the engine leaves them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

from agent.core.names import Reference, RepoId, SafeName, StoreName
from agent.core.plan import Plan, PlanFile
from agent.core.target import Selection, Target
from agent.store.layout import Layout, Published, Record, RecordFile
from agent.store.publish import Modes, Stage

COMMIT = "1a2b3c4d5e6f7890abcdef1234567890abcdef12"
ENDPOINT = "https://hub.example"
MODES = Modes(0o644, 0o755)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Model:
    """A model by its directory's name and its files' contents. The first `.gguf` is what a program opens."""

    name: str = "qwen3"
    files: dict[str, bytes] = field(default_factory=lambda: {"m-Q4_K_M.gguf": b"GGUF weights", "README.md": b"hello"})
    repo: str = "org/name"
    revision: str = "main"
    commit: str = COMMIT
    source: str = "hub"
    more: dict[str, Any] = field(default_factory=dict)  # further fields of the selection

    @property
    def opens(self) -> str | None:
        return min((name for name in self.files if name.endswith(".gguf")), default=None)

    @property
    def target(self) -> Target:
        selection = Selection(RepoId(self.repo), self.revision, **self.more)
        name = StoreName(self.name)
        return Target(name=name, selection=selection, reference=Reference(self.name), id=name, plain=selection)

    @property
    def plan(self) -> Plan:
        files = tuple(
            PlanFile(SafeName(name), RepoId(self.repo), self.commit, len(data), sha256(data), None)
            for name, data in self.files.items()
        )
        opens = SafeName(self.opens) if self.opens else None
        return Plan(self.target, self.commit, "gguf" if opens else "safetensors", files, opens)

    @property
    def record(self) -> Record:
        return Record(
            schema=1,
            model=self.name,
            repo=self.repo,
            revision=self.revision,
            commit=self.commit,
            format="gguf" if self.opens else "safetensors",
            opens=self.opens,
            selection=self.target.selection.to_json(),
            source=self.source,
            files=[RecordFile(name, len(data), sha256(data), self.source) for name, data in self.files.items()],
            published_at="2026-11-22T07:04:11.120Z",
            agent="wantd 0.1.0",
        )

    def stage(self, layout: Layout, modes: Modes = MODES) -> Stage:
        """A stage with every file in it, by way of partials."""
        stage = Stage(layout, self.plan, modes)
        stage.begin()
        for name, data in self.files.items():
            part = layout.part(sha256(data))
            if not os.path.exists(part):
                made = put(f"{layout.partial}/{os.urandom(6).hex()}", data)
                os.rename(made, part)  # another process may have been quicker, with the same bytes
            stage.add(SafeName(name), part)
        return stage

    def publish(self, layout: Layout, modes: Modes = MODES) -> Published:
        """Put the model in the store."""
        stage = self.stage(layout, modes)
        published = stage.publish(self.record, ENDPOINT)
        stage.note_stamps()
        return published


def make_layout(root: str) -> Layout:
    layout = Layout(root)
    layout.create()
    return layout


def tree(root: str) -> list[str]:
    """Every file below a directory, dot-directories left out."""
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.relpath(f"{folder}/{name}", root) for name in names]
    return sorted(found)


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def put(path: str, data: bytes) -> str:
    """A new file with these bytes in the place of whatever was there; other links to that keep theirs."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "wb") as file:
        file.write(data)
    return path


def assert_whole(layout: Layout, model: Model) -> Published:
    """The model is published, and each of its files has the bytes that the record says."""
    published = layout.published(model.target)
    assert published is not None, f"{model.name} is not published"
    assert_true_to_record(published)
    assert {file.name for file in published.record.files} == set(model.files)
    return published


def assert_true_to_record(published: Published) -> None:
    for file in published.record.files:
        assert sha256(read(f"{published.directory}/{file.name}")) == file.sha256, file.name
    assert os.path.exists(published.path)
