"""Producers in five languages, none of which uses wantd's code, drop a want and read `ready` and the path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import AgentProcess, clean_environment

PRODUCERS = Path(__file__).parent / "producers"

COMMANDS = {
    "sh": ["sh", str(PRODUCERS / "want.sh")],
    "c": ["{built}"],
    "node": ["node", str(PRODUCERS / "want.js")],
    "perl": ["perl", str(PRODUCERS / "want.pl")],
    "python": [sys.executable, "-I", str(PRODUCERS / "want.py")],
}


@pytest.mark.parametrize("language", COMMANDS)
def test_a_producer_in(agent: AgentProcess, tmp_path: Path, language: str) -> None:
    built = tmp_path / "want"
    if language == "c":
        subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", built, PRODUCERS / "want.c"], check=True)
    command = [word.format(built=built) for word in COMMANDS[language]]
    done = subprocess.run(
        [*command, str(agent.spool), "qwen3"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{agent.store}/qwen3/Qwen_Qwen3-0.6B-Q4_K_M.gguf\n"
