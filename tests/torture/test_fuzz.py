"""Every parser of what others wrote: never an exception other than the project's own, never a path outside the store.

Configuration, wants, names, catalogs, targets, plans, ranges, retries and the journal have their properties beside
their tests; here is what is read from a Hub and a store, the way from a want to its answer and its plan, and the table
of states. `make fuzz` runs everything for long.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import orjson
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.core.access import ProtocolError
from agent.core.catalog import Catalog, parse_catalog
from agent.core.names import check_collisions, safe_name
from agent.core.plan import Unread, make_plan, needed_listings
from agent.core.progress import AgentInfo, FileProgress, ModelProgress, WantInfo, render, show_model
from agent.core.remote import Listing
from agent.core.selection.code import CodePolicy
from agent.core.selection.tree import Contents
from agent.core.states import FINAL, LEGAL, State, combined, move
from agent.core.target import make_target
from agent.core.want import WantedModel, parse_want
from agent.errors import Code, WantdError
from agent.sources import hub_parse
from agent.store.layout import Layout, read_record
from agent.store.locks import read_holder
from agent.transfer.wire import _parse_head

NASTY = st.sampled_from(
    ["", ".", "..", "../x", "/etc/x", "a/../b", "a\0b", "a\\b", "x" * 300, "\ud800", "A", "a", ".wantd.json", ".locks",
     "w-Q4_K_M.gguf", "w-00001-of-00002.gguf", "model.safetensors", "model.safetensors.index.json", "a/b", "a/b/c",
     "pytorch_model.bin", "mmproj-f16.gguf", "manifest.json", "model.gguf", "a\n", " ", "*", "[", "**/*"]
)  # fmt: skip
NAMES = NASTY | st.text(max_size=30)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | NAMES
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=15
)
HEX64 = st.sampled_from(["a" * 64, "b" * 64, "A" * 64, "g" * 64, "a" * 63])
HEX40 = st.sampled_from(["a" * 40, "c" * 40, "main", ""])
COMMIT = "c" * 40


def loosely(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that look right, with fields left out, and others of any type at all."""
    return st.fixed_dictionaries({}, optional={name: kind | JSON for name, kind in fields.items()})


# -- catalog ------------------------------------------------------------------------------------------------------

ARTIFACT = loosely(name=NAMES, path=NAMES, filename=NAMES, url=NAMES, repo=NAMES, sha256=HEX64, priority=st.integers())
ENTRY = loosely(
    id=st.sampled_from(["qwen3", "Org/Model", "a/b/c", "..", "", ".partial", "x:y", "é"]) | NAMES,
    repo=st.sampled_from(["org/name", "name", "a/b/c", "../x"]) | NAMES,
    repo_id=NAMES,
    recommended_filename=NAMES,
    revision=NAMES,
    sha256=HEX64,
    artifacts=st.lists(ARTIFACT, max_size=3),
    files=st.lists(NAMES, max_size=3),
    exclude=st.lists(NAMES, max_size=3),
    aliases=st.lists(NAMES, max_size=3),
    format=NAMES,
    size_bytes=SCALARS,
)
CATALOG = st.lists(ENTRY, max_size=4) | st.lists(ENTRY, max_size=4).map(lambda entries: {"models": entries}) | JSON
WANTED = st.builds(
    WantedModel,
    reference=st.sampled_from(["qwen3", "Org/Model:Q4_K_M", "org/name@main", "a/b@" + COMMIT]) | NAMES,
    revision=st.none() | NAMES,
    files=st.lists(NAMES, max_size=2).map(tuple),
    exclude=st.lists(NAMES, max_size=2).map(tuple),
)


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def catalog_of(data: bytes) -> Catalog | None:
    try:
        return parse_catalog(data)
    except ValueError:  # its contract: the whole cannot be read
        return None


def stays_inside(name: str) -> None:
    layout = Layout("/store")
    path = layout.directory(name)  # type: ignore[arg-type]
    assert os.path.normpath(path) == path
    assert path.startswith("/store/")
    assert not path.startswith(("/store/.locks", "/store/.partial"))
    lock = layout.model_lock(name)  # type: ignore[arg-type]
    assert os.path.dirname(lock) == "/store/.locks"
    assert len(os.path.basename(lock)) <= 255


# -- listing --------------------------------------------------------------------------------------------------------

SIZE = st.sampled_from([0, 1, 1000, -1, 2**62, True, 1.5]) | st.integers()
LFS = loosely(sha256=HEX64, oid=HEX64, size=SIZE)
SIBLING = loosely(rfilename=NAMES, size=SIZE, blobId=HEX40, lfs=LFS)
TREE = loosely(type=st.sampled_from(["file", "directory", "link"]), path=NAMES, oid=HEX40, size=SIZE, lfs=LFS)


def files_or_error(parse: Any, value: Any) -> Any:
    try:
        return parse(value)
    except WantdError as error:
        assert error.code in (Code.HUB_PROTOCOL, Code.FORBIDDEN_PATH)
        assert error.message.isascii(), error.message
        return None


@given(st.lists(SIBLING, max_size=4) | JSON)
def test_no_listing_breaks_its_parser(siblings: Any) -> None:
    files = files_or_error(hub_parse.files_of, siblings)
    for file in files or ():
        assert safe_name(file.name) == file.name
    check_collisions(file.name for file in files or ())


@given(st.lists(TREE, max_size=4) | JSON)
def test_no_tree_breaks_its_parser(page: Any) -> None:
    files_or_error(hub_parse.tree_files, page)


GOOD_SIBLING = st.fixed_dictionaries(
    {"rfilename": NAMES, "size": st.sampled_from([0, 7, 10**9]), "blobId": st.just("b" * 40)},
    optional={"lfs": st.just({"sha256": "a" * 64})},
)


@given(st.lists(GOOD_SIBLING, max_size=6, unique_by=lambda one: one["rfilename"]), WANTED, CATALOG.map(dumps), JSON)
def test_whatever_a_hub_lists_the_plan_stays_in_the_store(
    siblings: list[dict[str, Any]], wanted: WantedModel, data: bytes, index: Any
) -> None:
    files = files_or_error(hub_parse.files_of, siblings)
    if files is None:
        return
    with contextlib.suppress(WantdError):
        target = make_target(catalog_of(data) or Catalog(), "any", wanted)
        listings = {
            key: Listing("hub", target.selection.repo, COMMIT, files) for key in needed_listings(target.selection)
        }
        contents, policy = Contents(), CodePolicy(frozenset({"bin"}))
        while isinstance(plan := make_plan(target, listings, contents, policy), Unread):
            for file in plan.files:
                contents.add(file.name, dumps(index))
        stays_inside(target.name)
        stays_inside(target.id)
        orjson.dumps(target.selection.to_json())
        names = [file.name for file in plan.files]
        check_collisions(names)
        assert all(safe_name(name) == name for name in names)
        assert plan.opens is None or plan.opens in names


@given(st.text(max_size=60) | st.none())
def test_no_header_of_a_hub_breaks_its_parser(text: str | None) -> None:
    size = hub_parse.size_of_header(text)
    assert size is None or 0 <= size < hub_parse.MAX_SIZE
    hub_parse.etag_of(text)


LINE = st.binary(max_size=60) | st.sampled_from(
    [b"Content-Length: 5", b"Content-Length: -5", b"Content-Length: 99999999999999999999", b"ETag: \xff", b": x",
     b"Content-Range: bytes 0-4/9", b"Content-Range: bytes 9-4/5", b"Transfer-Encoding: chunked", b"A:", b" folded"]
)  # fmt: skip
STATUS = st.binary(max_size=30) | st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.0 206 ", b"HTTP/2 200", b"HTTP/1.1 999"]
)


@given(STATUS, st.lists(LINE, max_size=6))
def test_no_head_of_an_answer_breaks_its_parser(status: bytes, lines: list[bytes]) -> None:
    with contextlib.suppress(ProtocolError):
        head, _ = _parse_head(b"\r\n".join([status, *lines]))
        assert 100 <= head.status <= 999
        with contextlib.suppress(ProtocolError):
            assert head.length is None or head.length >= 0
        first, behind, total = head.content_range
        assert min(first, behind, total) >= 0


# -- what lies in the store -----------------------------------------------------------------------------------------

FILE = loosely(name=NAMES, size=st.integers(), sha256=HEX64, source=NAMES)
RECORD = loosely(schema=st.just(1), model=NAMES, repo=NAMES, revision=NAMES, commit=HEX40, format=NAMES, opens=NAMES,
                 selection=JSON, source=NAMES, files=st.lists(FILE, max_size=3), published_at=NAMES)  # fmt: skip


@given(st.binary(max_size=200) | RECORD.map(dumps))
def test_no_record_breaks_the_store(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, ".wantd.json").write_bytes(data)
        record = read_record(folder)
    for file in record.files if record else ():
        safe_name(file.name)


@given(st.binary(max_size=600) | loosely(pid=SCALARS, host=SCALARS, started_at=SCALARS, progress=SCALARS).map(dumps))
def test_no_lock_file_breaks_who_waits_for_it(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        holder = read_holder(file.name)
    if holder:
        msgspec.json.encode(holder.shown())
        assert str(holder).isascii()


# -- from a want to its answer --------------------------------------------------------------------------------------


LINES = st.lists(NAMES, max_size=4).map("\n".join).map(lambda text: text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200) | JSON.map(dumps) | LINES)
def test_any_want_has_an_answer_that_can_be_written(data: bytes) -> None:
    now = datetime.now(UTC)
    error, labels, named = None, {}, []
    try:
        want = parse_want("x.want", data)
        labels = dict(want.labels)
        for model in want.models:
            progress = ModelProgress()
            try:
                make_target(Catalog(), "any", model)
            except WantdError as failed:
                progress.go(State.FAILED, error=failed)
            named.append((model.reference, progress))
    except WantdError as failed:
        error = failed
    info = WantInfo("x.want", 1, now, None, None, labels)
    answer, _ = render(info, [show_model(*one) for one in named], AgentInfo(1, "host", "0"), now, error=error)
    assert msgspec.json.decode(answer)["want"] == "x.want"


# -- the table of states --------------------------------------------------------------------------------------------


class Jobs(RuleBasedStateMachine):
    """Any order of events: the state is always one that the table allows, and the progress runs within 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.progress = ModelProgress()
        self.files = [FileProgress("a", 100), FileProgress("b", 0), FileProgress("c", 50)]
        self.now = 0.0

    @rule(state=st.sampled_from(list(State)))
    def go(self, state: State) -> None:
        before = self.progress.state
        legal = state is before or state in LEGAL[before]
        try:
            self.progress.go(state)
            assert legal
        except ValueError:
            assert not legal
            assert self.progress.state is before

    @rule(total=st.none() | st.just(150))
    def begin(self, total: int | None) -> None:
        self.files = [FileProgress("a", 100), FileProgress("b", 0), FileProgress("c", 50)]
        self.progress.begin(self.files, total)

    @rule(at=st.integers(0, 2), share=st.floats(0, 1), state=st.sampled_from(list(State)), later=st.floats(0, 10))
    def update(self, at: int, share: float, state: State, later: float) -> None:
        file = self.files[at]
        self.now += later
        if self.progress.files is self.files:
            self.progress.update(file, int((file.size or 0) * share), state, self.now)

    @invariant()
    def it_can_be_shown(self) -> None:
        assert 0.0 <= self.progress.fraction <= 1.0
        assert (self.progress.fraction == 1.0) == (self.progress.state is State.READY)
        assert 0 <= self.progress.files_done <= len(self.progress.files)
        assert self.progress.rate >= 0
        orjson.dumps(self.progress.to_json("x"))


TestJobs = Jobs.TestCase


@given(st.sampled_from(list(State)), st.sampled_from(list(State)))
def test_only_a_new_attempt_leads_out_of_a_final_state(old: State, new: State) -> None:
    if old in FINAL and new is not old and new is not State.QUEUED:
        with contextlib.suppress(ValueError):
            move(old, new)
            raise AssertionError(f"{old} -> {new}")


@given(st.lists(st.sampled_from(list(State)), min_size=1))
def test_a_want_is_final_only_when_all_its_models_are(states: list[State]) -> None:
    assert (combined(states) in FINAL) == all(state in FINAL for state in states)
