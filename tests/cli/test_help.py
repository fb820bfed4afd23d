"""What the command line says of itself: overview, help with examples, completion, and the words of each command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from agent.cli import COMMANDS, main, parser
from agent.cli.allow import with_patterns
from tests.harness import AgentProcess, clean_environment


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_has_examples_that_are_commands(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "examples:" in said
    examples = import_module(f"agent.cli.{name.replace('-', '_')}").EXAMPLES
    assert f"wantd {name}" in examples
    assert all(len(line) <= 84 for line in said.splitlines())


def test_each_example_is_taken_by_the_parser() -> None:
    tried = 0
    for name in COMMANDS:
        for line in import_module(f"agent.cli.{name.replace('-', '_')}").EXAMPLES.splitlines():
            command = line.strip().partition("   ")[0].partition(" > ")[0].partition(" | ")[0]
            if command.startswith(f"wantd {name}"):
                parser().parse_args(shlex.split(command)[1:])
                tried += 1
    assert tried >= len(COMMANDS)


def test_alone_it_says_what_goes_on_and_what_it_can_do(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    alone = agent.wantd()
    assert alone.returncode == 0
    assert "agent   not running" in alone.stdout
    assert all(f"  {name} " in alone.stdout for name in COMMANDS)
    assert "wantd run" in alone.stdout
    agent.drop("qwen3", "qwen3")
    with agent:
        agent.ready("qwen3")
        assert "1 ready" in agent.wantd().stdout
    agent.set(transfer__jobs="many")
    broken = agent.wantd()
    assert broken.returncode == 0
    assert "configuration: environment: WANTD_TRANSFER__JOBS" in broken.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "completion", shell],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(name in done.stdout for name in COMMANDS)
    assert "cancel-on-interrupt" in done.stdout


def test_completion_of_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "wantd"
    with script.open("w") as file:
        subprocess.run([sys.executable, "-m", "agent", "completion", "bash"], stdout=file, check=True)
    typed = "COMP_WORDS=(wantd sta); COMP_CWORD=1; COMP_LINE='wantd sta'"
    ask = f"source {script}; {typed}; _shtab_wantd; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["status"]


def test_models_are_searched_and_told_near_ones(make_agent: Callable[..., AgentProcess]) -> None:
    agent = make_agent()
    found = agent.wantd("models", "CODER")
    assert found.returncode == 0
    assert [line.split()[0] for line in found.stdout.splitlines()[1:]] == ["qwen3-coder"]
    none = agent.wantd("models", "quen3")
    assert none.returncode == 1
    assert "did you mean qwen3" in none.stderr
    with agent:
        agent.drop("qwen3", "qwen3")
        agent.ready("qwen3")
    ready = [line for line in agent.wantd("models").stdout.splitlines() if " ready " in line]
    assert [line.split()[0] for line in ready] == ["qwen3"]


@pytest.mark.parametrize(
    ("before", "after", "added"),
    [
        ("", '[policy]\nallow = ["catalog", "a/b"]\n', ["catalog", "a/b"]),
        ("# mine\n[policy]\n# who\nallow = 'x/*' # why\n", None, ["x/*", "a/b"]),
        ('[policy]\nallow = ["a/b"]\n', '[policy]\nallow = ["a/b"]\n', []),
        ('[policy]\nallow = "any"\n', '[policy]\nallow = "any"\n', []),
    ],
)
def test_allow_changes_that_key_alone(before: str, after: str | None, added: list[str]) -> None:
    text, allowed = with_patterns(before, ["a/b"])
    assert allowed == added
    if after is not None:
        assert text == after
    else:
        assert "# mine\n[policy]\n# who\nallow = " in text


@pytest.mark.parametrize("text", ["policy = 1", "[policy", "[[policy]]"])
def test_allow_refuses_a_file_that_is_no_configuration(text: str) -> None:
    with pytest.raises(ValueError, match=r"policy|TOML"):
        with_patterns(text, ["a/b"])
