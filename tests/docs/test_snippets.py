"""What README and docs/ show can be typed: commands parse, shell is shell, configurations load, wants are wants."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from agent.cli import COMMANDS, parser
from agent.config import SECTIONS, load
from agent.core.want import parse_want
from tests.harness import CHECKOUT

PAGES = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md")])
MAKE_TARGETS = re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)


def snippets(language: str) -> list[tuple[str, str]]:
    """(page, code) of every block of a language."""
    found = []
    for page in PAGES:
        for code in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            found.append((page.name, code))
    return found


def named(cases: list[tuple[str, str]]) -> list[str]:
    return [f"{page}-{number}" for number, (page, _) in enumerate(cases)]


SHELL = snippets("sh")


@pytest.mark.parametrize(("page", "code"), SHELL, ids=named(SHELL))
def test_shell_is_shell(page: str, code: str) -> None:
    done = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{page}: {done.stderr}\n{code}"


def commands_of_pages() -> list[tuple[str, str]]:
    """(page, `wantd …` command) of everything that can be typed, in blocks and in lines of text."""
    found = []
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        text = page.read_text()
        places = [code for _, code in snippets("sh")] if page.name == "README.md" else []
        places += re.findall(r"`((?:[\w/.]*/)?wantd [^`]+)`", text)
        for place in places:
            for line in re.findall(r"(?:^|[\s(/\"])wantd ([a-z-]+\b[^#\n;&|)\"`]*)", place):
                if line.split()[0] in COMMANDS:
                    found.append((page.name, line.strip()))
    return sorted(set(found))


TYPED = commands_of_pages()


@pytest.mark.parametrize(("page", "command"), TYPED, ids=named(TYPED))
def test_every_command_is_taken_by_the_parser(page: str, command: str) -> None:
    command = re.sub(r"(?<=\w)…", "", command.replace(" \\", ""))
    words = [word for word in shlex.split(command) if not word.startswith((">", "<"))]
    name = words[0]
    if len(words) == 1:
        assert name in COMMANDS
        return
    if re.search(r"\b[A-Z]{2,}\b", command) or "…" in command or "=" in words[0]:
        return  # a form, not something to type
    parser([name]).parse_args(words)


def test_commands_were_found() -> None:
    assert len(TYPED) > 20


def test_every_target_of_make_that_a_page_names_is_there() -> None:
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE):
                assert target in MAKE_TARGETS, f"{page.name}: make {target}"


def test_configurations_load(tmp_path: Path) -> None:
    for page, code in snippets("toml"):
        path = tmp_path / page
        path.write_text(code)
        load(str(path), {})


def test_settings_that_pages_give_are_settings(tmp_path: Path) -> None:
    tried = 0
    for page in PAGES:
        for section, line in re.findall(r"`(\w+)\.(\w+ = [^`…]+)`", page.read_text()):
            if section in SECTIONS:
                path = tmp_path / "config.toml"
                path.write_text(f"[{section}]\n{line}\n")
                load(str(path), {})
                tried += 1
    assert tried > 5


JSON = snippets("json")


@pytest.mark.parametrize(("page", "code"), JSON, ids=named(JSON))
def test_json_is_json_and_wants_are_wants(page: str, code: str) -> None:
    value = json.loads(code.replace("…", "0"))
    other = isinstance(value, dict) and value.keys() & {"schema", "code"}
    if isinstance(value, list) or (value.keys() & {"models", "model"} and not other):
        parse_want("x.want", code.encode())


def test_the_manual_page_is_that_of_the_commands() -> None:
    page = (CHECKOUT / "man" / "wantd.1").read_text().replace("\\-", "-")
    for name in COMMANDS:
        said = page.partition(f"COMMAND \\fI\\,'wantd {name}'")[2].partition(".SH COMMAND")[0]
        with_arguments = parser([name])._subparsers._group_actions[0].choices[name]  # type: ignore[union-attr,index]
        options = {option for action in with_arguments._actions for option in action.option_strings} - {"-h", "--help"}
        assert [option for option in sorted(options) if option not in said] == [], f"{name} has changed: make man"
