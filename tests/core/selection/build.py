"""Repositories and plans for the tests of selections: a listing from names, a plan from what is asked of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from agent.core.names import Reference, RepoId, SafeName, StoreName
from agent.core.plan import Plan, make_plan
from agent.core.remote import Listing, RemoteFile
from agent.core.selection.code import CodePolicy
from agent.core.selection.tree import Contents
from agent.core.target import Selection, Target
from agent.errors import WantdError

REPO = RepoId("org/name")
COMMIT = "1a2b3c4d5e6f7890abcdef1234567890abcdef12"


def listing(*names: str, repo: str = REPO, hashes: Mapping[str, str] | None = None, size: int | None = 100) -> Listing:
    """A repository with files of `size` bytes each."""
    files = tuple(RemoteFile(SafeName(name), size, (hashes or {}).get(name)) for name in names)
    return Listing("hub", RepoId(repo), COMMIT, files)


def asked(selection: Selection) -> Target:
    """The target of a reference `org/name` that is not in the catalog, with that selection."""
    name = StoreName("org/name")
    plain = replace(selection, quant=None, files=(), exclude=(), snapshot="load")
    return Target(name, selection, Reference(selection.repo), name, plain)


def plan(
    there: Listing | tuple[str, ...] | list[str],
    contents: Mapping[str, object] | None = None,
    formats: tuple[str, ...] = (),
    code: Any = "warn",
    **selected: Any,
) -> Plan:
    """The plan for a selection out of what is there. `contents` are bytes, or values to be read as JSON, by file."""
    there = there if isinstance(there, Listing) else listing(*there)
    return plan_of(
        asked(Selection(there.repo, **selected)), there, contents or {}, CodePolicy(frozenset(formats), code)
    )


def plan_of(target: Target, there: Listing, contents: Mapping[str, object], policy: CodePolicy) -> Plan:
    """Make a plan, and read what it has to read."""
    read = Contents()
    while True:
        step = make_plan(target, {(there.repo, target.selection.revision): there}, read, policy)
        if isinstance(step, Plan):
            return step
        assert step.files
        for file in step.files:
            assert file.name not in read, "asked for twice"
            value = contents[file.name]
            read.add(file.name, value if isinstance(value, bytes) else json.dumps(value).encode())


def names(made: Plan) -> list[str]:
    """The names of a plan's files, in its order."""
    return [file.name for file in made.files]


def refused(*there: Any, **selected: Any) -> WantdError:
    """The error for a selection that has no plan."""
    with pytest.raises(WantdError) as caught:
        plan(*there, **selected)
    error = caught.value
    assert not error.retryable
    assert error.hint
    assert (error.message + error.hint).isascii()
    return error


def index(*shards: str) -> dict[str, Any]:
    """An index of weights with one tensor in each shard."""
    return {"metadata": {}, "weight_map": {f"layer.{at}": shard for at, shard in enumerate(shards)}}
