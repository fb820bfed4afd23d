"""Odd arguments, and a standard output that takes nothing: one line that says so."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from agent.cli.arguments import not_empty, seconds
from agent.errors import Exit
from tests.harness import clean_environment


def test_times_that_end() -> None:
    assert [seconds(text) for text in ("0", "1.5", "1e3")] == [0.0, 1.5, 1000.0]


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "", "soon"])
def test_no_other_time(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="expected a number of seconds"):
        seconds(text)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_a_name_is_not_empty(text: str) -> None:
    assert not_empty("qwen3") == "qwen3"
    with pytest.raises(ArgumentTypeError):
        not_empty(text)


@pytest.mark.parametrize("arguments", [["get", ""], ["get", "--timeout", "nan", "qwen3"], ["wait", ""]])
def test_odd_arguments_ask_for_nothing(tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "agent", *arguments]
    environ = clean_environment(HOME=str(tmp_path))
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == Exit.USAGE, done.stderr
    assert not list(tmp_path.rglob("*.want"))


def test_a_full_standard_output_is_an_error_in_one_line(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "agent", "get", "--no-wait", "qwen3"],
            env=clean_environment(HOME=str(tmp_path)),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
        )
    assert done.returncode == Exit.FAILURE
    assert done.stderr == "wantd: cannot write to standard output: No space left on device\n"
