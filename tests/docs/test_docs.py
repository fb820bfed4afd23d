"""The pages in docs/ and the code say the same: every code, key, state and setting, and no link leads nowhere."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.cli import COMMANDS
from agent.config import FIXED, SECTIONS
from agent.core import limits, want
from agent.core.progress import FILES_SHOWN, AgentInfo, FileProgress, ModelProgress, WantInfo, render, show_model
from agent.core.states import LEGAL, State
from agent.core.waits import AnyWait, Wait
from agent.errors import RETRYABLE, Code, Exit
from agent.state.job import Job
from tests.harness import CHECKOUT

DOCS = CHECKOUT / "docs"
PAGES = sorted([CHECKOUT / "README.md", *DOCS.glob("*.md")])
# Documents that a checkout does not have, and ways of citing them.
ELSEWHERE = re.compile(r"SPEC section|\b(?:SPEC|HUB|DESIGN|LIBRARIES|PEERS|FLEET)\.md|\bSPEC \d")


def page(name: str) -> str:
    return (DOCS / name).read_text()


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    level = heading.split()[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose first line is `head`."""
    lines = text.splitlines()
    start = lines.index(head)
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return table


def names(cell: str) -> list[str]:
    """Every `name` of a cell."""
    return re.findall(r"`([^`]+)`", cell)


def first_cells(text: str, head: str) -> list[str]:
    return [name for row in rows(text, head) for name in names(row[0])]


# What they list


def test_every_error_code_with_its_exit_code_and_whether_it_is_retried() -> None:
    table = rows(page("errors.md"), "| code | exit | | what happened | what to do |")
    listed = [(names(row[0])[0], row[1], row[2]) for row in table]
    assert listed == [(c.value, str(Exit.of(c)), "retried" if c in RETRYABLE else "final") for c in Code]
    assert all(row[3] and row[4] for row in table)


def test_every_key_of_a_progress_file() -> None:
    text = page("protocol.md")
    now = datetime.now(UTC)
    cut = ModelProgress(skipped=("modeling.py",), warning="needs code", throttled_by="cdn.example:443")
    cut.begin([FileProgress(f"{number}", 1) for number in range(FILES_SHOWN + 1)], None)
    cut.update(cut.files[0], 1, State.DOWNLOADING, 0.0)
    data, _ = render(WantInfo("x.want", 1, now, None, None, {}), [show_model("x", cut)], AgentInfo(1, "h", "v"), now)
    written: dict[str, Any] = json.loads(data)
    body = section(text, "## Progress files")
    top, _, of_models = body.partition("Of each model:")
    assert sorted(first_cells(top, "| key | value |")) == sorted(written)
    assert sorted(first_cells(of_models, "| key | value |")) == sorted(written["models"][0])
    of_files = next(row[1] for row in rows(of_models, "| key | value |") if row[0] == "`files`")
    assert sorted(names(of_files)) == sorted(written["models"][0]["files"][0])
    agent = next(row[1] for row in rows(top, "| key | value |") if row[0] == "`agent`")
    assert sorted(names(agent)) == sorted(written["agent"])
    states = next(row[1] for row in rows(top, "| key | value |") if row[0] == "`state`")
    assert sorted(names(states)) == sorted(State)


def test_every_reason_to_wait_with_its_keys() -> None:
    kinds: tuple[type[Wait], ...] = AnyWait.__args__
    table = rows(section(page("protocol.md"), "## Waiting"), "| `for` | other keys | ends when |")
    listed = {names(row[0])[0]: [name for name in names(row[1]) if name in _fields(kinds)] for row in table}
    assert listed == {str(kind.__struct_config__.tag): list(kind.__struct_fields__) for kind in kinds}


def _fields(kinds: tuple[type[Wait], ...]) -> set[str]:
    return {field for kind in kinds for field in kind.__struct_fields__}


def test_every_key_of_a_want() -> None:
    head = "| key | value |"
    listed = first_cells(section(page("protocol.md"), "## Wants"), head)
    known = {field.encode_name for kind in (want._Single, want._Manifest) for field in msgspec.structs.fields(kind)}
    assert sorted(listed) == sorted(known)


def test_every_budget_with_its_value() -> None:
    table = rows(section(page("SECURITY.md"), "## Budgets"), "| budget | value | bounds | beyond it |")
    listed = {names(row[0])[0]: row[1] for row in table}
    known = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert listed == {name: f"{value:,}" for name, value in known.items()}
    assert all(row[2] and row[3] for row in table)


def test_every_command() -> None:
    listed = first_cells(section(page("protocol.md"), "## Commands"), "| command | does | options |")
    assert sorted(name.split()[1] for name in listed) == sorted(COMMANDS)


def test_every_setting_with_its_default_and_whether_it_needs_a_restart() -> None:
    text = page("configuration.md")
    for name, kind in SECTIONS.items():
        table = rows(section(text, f"## [{name}]"), "| key | default | means | at reload |")
        listed = [(names(row[0])[0], json.loads(names(row[1])[0]), row[3]) for row in table]
        assert listed == [
            (f"{name}.{field.name}", _default(field), "restart" if (name, field.name) in FIXED else "at once")
            for field in msgspec.structs.fields(kind)
        ]
    assert re.findall(r"^## \[(\w+)\]$", text, re.MULTILINE) == list(SECTIONS)


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()  # type: ignore[operator]


def test_the_table_of_states() -> None:
    table = rows(section(page("architecture.md"), "## The life of a job"), "| from | to |")
    listed = {names(row[0])[0]: set(names(row[1])) for row in table}
    assert listed == {old.value: {new.value for new in allowed if new is not old} for old, allowed in LEGAL.items()}


def test_every_move_of_a_job() -> None:
    table = rows(section(page("architecture.md"), "## The life of a job"), "| move | to | called by | when |")
    listed = {name.removeprefix("Job.") for row in table for name in names(row[0])}
    moves = re.compile(r"self\.(_go|wait)\(")
    assert listed == {
        name
        for name, method in inspect.getmembers(Job, inspect.isfunction)
        if not name.startswith("_") and moves.search(inspect.getsource(method))
    }


def test_every_room_is_in_the_table_and_in_the_picture() -> None:
    rooms = {
        entry.name
        for entry in (CHECKOUT / "agent").iterdir()
        if not entry.name.startswith("_") and (entry.suffix == ".py" or (entry / "__init__.py").is_file())
    }
    table = section(page("architecture.md"), "## The rooms")
    listed = {
        name.removeprefix("agent/").rstrip("/")
        for name in first_cells(table, "| room | what it is for | its entrance |")
    }
    assert listed == rooms
    picture = (DOCS / "rooms.svg").read_text()
    assert [room for room in sorted(rooms) if f">{room}" not in picture and f" {room}" not in picture] == []


# Where they lead


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        assert to.exists(), target
        assert not anchor or anchor in _anchors(to), target


def _anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_file_of_the_project_that_a_page_names_is_there(path: Path) -> None:
    named = re.findall(r"`((?:agent|bench|config|docs|systemd|tests)/[\w./-]+)`", path.read_text())
    assert [name for name in named if "NAME" not in name and not _is_there(name)] == []


def _is_there(name: str) -> bool:
    return (CHECKOUT / name).exists()


def test_every_page_is_in_the_index() -> None:
    linked = set(re.findall(r"\]\(([\w.]+\.md)\)", page("README.md")))
    assert linked == {path.name for path in DOCS.glob("*.md")} - {"README.md"}


def test_nothing_cites_a_document_that_is_not_here() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    texts = [name for name in tracked if name.endswith((".py", ".md", ".toml", ".service", ".conf", ".c"))]
    assert texts
    cited = [
        f"{name}: {found[0]}"
        for name in texts
        if (CHECKOUT / name).is_file() and name != "tests/docs/test_docs.py"
        for found in ELSEWHERE.finditer((CHECKOUT / name).read_text())
    ]
    assert cited == []
