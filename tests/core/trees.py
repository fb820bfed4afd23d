"""Reads the corpus: trees of real repositories with what is expected of them, as data in `corpus/*.toml`.

A tree has `files`, one a line: its name, its size in bytes, and `lfs` where its hash is a SHA-256 (else a git SHA-1).
Names may hold `{a,b}` and `{001..003}`. `contents` has the small files that have to be read; `"index: NAMES"` stands
for an index of those shards. Each `want` is the JSON of one, without `model` where that is the repository's name, and
`expect`s a choice or an error.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.core.names import RepoId, SafeName
from agent.core.remote import Listing, RemoteFile
from tests.core.selection.build import COMMIT, index

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Case:
    """One want for one tree. `chosen` is None where an error is expected; `loader` is who opens the files."""

    repo: str
    listing: Listing
    contents: dict[str, object]
    want: dict[str, Any]
    chosen: tuple[str, ...] | None
    skipped: tuple[str, ...]
    warning: str | None
    error: str | None
    hint: tuple[str, ...]
    loader: str | None
    formats: tuple[str, ...]
    code: str
    variant: str | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        asked = {key: value for key, value in self.want.items() if key != "model"}
        model = str(self.want["model"]).removeprefix(self.repo)
        return " ".join([self.repo + model, *(f"{key}={value}" for key, value in asked.items()), *self.formats])


def expand(pattern: str) -> list[str]:
    """`a-{1..3}.{x,y}` as the names it stands for."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    inside = found[1]
    if run := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        values = [f"{number:0{len(run[1])}d}" for number in range(int(run[1]), int(run[2]) + 1)]
    else:
        values = inside.split(",")
    return [name for value in values for name in expand(pattern[: found.start()] + value + pattern[found.end() :])]


def _files(text: str) -> Iterator[RemoteFile]:
    for line in text.strip().splitlines():
        found = re.fullmatch(r"(.*\S)\s+(\d+)(\s+lfs)?", line.strip())
        assert found, line
        for name in expand(found[1]):
            digest = hashlib.sha256(name.encode()).hexdigest()
            hashes = {"sha256": digest} if found[3] else {"git_sha1": digest[:40]}
            yield RemoteFile(SafeName(name), int(found[2]), **hashes)


def _content(value: Any) -> object:
    if isinstance(value, str) and value.startswith("index: "):
        return index(*(name for pattern in value.removeprefix("index: ").split() for name in expand(pattern)))
    return value.encode() if isinstance(value, str) else value


def _names(value: str | list[str]) -> tuple[str, ...]:
    patterns = value.split("\n") if isinstance(value, str) else value
    return tuple(name for pattern in patterns if pattern.strip() for name in expand(pattern.strip()))


def _cases(tree: dict[str, Any]) -> Iterator[Case]:
    listing = Listing("hub", RepoId(tree["repo"]), COMMIT, tuple(_files(tree["files"])))
    contents = {name: _content(value) for name, value in tree.get("contents", {}).items()}
    for want in tree["want"]:
        expect = want.pop("expect")
        yield Case(
            repo=tree["repo"],
            listing=listing,
            contents=contents,
            formats=tuple(want.pop("formats", ())),
            code=want.pop("code", "warn"),
            want={"model": tree["repo"], **want},
            chosen=_names(expect["chosen"]) if "chosen" in expect else None,
            skipped=_names(expect.get("skipped", [])),
            warning=expect.get("warning"),
            error=expect.get("error"),
            hint=tuple(expect.get("hint", ())),
            loader=expect.get("loader"),
            variant=expect.get("variant"),
        )


def cases() -> list[Case]:
    """Every want of every tree."""
    trees = [tree for path in sorted(CORPUS.glob("*.toml")) for tree in tomllib.loads(path.read_text())["tree"]]
    repos = [tree["repo"] for tree in trees]
    assert len(repos) == len(set(repos))
    return [case for tree in trees for case in _cases(tree)]
