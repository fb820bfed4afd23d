"""What README and docs/ show runs as it is shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import CHECKOUT, AgentProcess

README = (CHECKOUT / "README.md").read_text()
LANGUAGES = (CHECKOUT / "docs" / "languages.md").read_text()

C_PROGRAM = "#include <stdio.h>\n#include <string.h>\n#include <unistd.h>\nint main(void) {\n%s\nreturn 0; }\n"
JAVA_PROGRAM = "import java.nio.file.*;\nclass Want { public static void main(String[] a) throws Exception {\n%s\n} }\n"


def snippet(language: str, page: str = LANGUAGES) -> str:
    """The code block that follows the language's name."""
    found = re.search(rf"^{language}[^\n]*:\n```[a-z]+\n(.*?)```", page, re.MULTILINE | re.DOTALL)
    assert found, language
    return found[1]


def command(language: str, code: str, folder: Path) -> list[str]:
    match language:
        case "Shell":
            return ["sh", "-c", code]
        case "Python":
            return ["python3", "-I", "-c", code]
        case "Node":
            return ["node", "-e", code]
        case "Perl":
            return ["perl", "-e", code]
        case "Java":
            (folder / "Want.java").write_text(JAVA_PROGRAM % code)
            return ["java", str(folder / "Want.java")]
    (folder / "want.c").write_text(C_PROGRAM % code)
    subprocess.run(["cc", "-Wall", "-Werror", "-o", folder / "want", folder / "want.c"], check=True)
    return [str(folder / "want")]


@pytest.mark.parametrize("language", ["Shell", "Python", "Node", "Perl", "C", "Java"])
def test_the_lines_for(make_agent: Callable[..., AgentProcess], tmp_path: Path, language: str) -> None:
    agent = make_agent()
    agent.spool = agent.root / ".llmlb" / "spool"  # the default place: HOME is the agent's directory
    del agent.environ["WANTD_SPOOL__DIR"]
    with agent:
        done = subprocess.run(
            command(language, snippet(language), tmp_path),
            env=agent.environ,
            cwd=agent.spool,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{agent.store}/qwen3/Qwen_Qwen3-0.6B-Q4_K_M.gguf"


def test_readme_shows_the_same_lines_for_the_shell() -> None:
    assert snippet("Shell", README) == snippet("Shell", LANGUAGES)


def test_readme_begins_with_what_a_stranger_does_first() -> None:
    first = README.splitlines()[:80]
    assert any(line.startswith("make demo") for line in first)
    assert any(line.startswith("make test") for line in first)


def test_the_progress_file_that_the_protocol_shows_has_the_keys_of_a_real_one(
    make_agent: Callable[..., AgentProcess],
) -> None:
    text = (CHECKOUT / "docs" / "protocol.md").read_text().split("## Progress files")[1]
    block = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert block
    shown = json.loads(block[1])
    with make_agent() as agent:
        agent.drop("qwen3", "qwen3")
        agent.ready("qwen3")
        real = agent.progress("qwen3") or {}
    assert list(shown) == list(real)
    assert list(shown["models"][0]) == list(real["models"][0])
    assert list(shown["models"][0]["files"][0]) == list(real["models"][0]["files"][0])


RECIPES = README.split("Load what you got:")[1]


def test_readmes_recipes_give_the_programs_a_path(agent: AgentProcess, tmp_path: Path) -> None:
    """The programs are stand-ins that say what they were given; the rest of each line is as it is shown."""
    block = re.search(r"```sh\n(.*?)```", RECIPES, re.DOTALL)
    assert block
    for program in ("llama-server", "vllm", "python"):
        stub = tmp_path / program
        stub.write_text('#!/bin/sh\necho "$0" "$@" "$HF_HUB_CACHE"\n')
        stub.chmod(0o755)
    (tmp_path / "wantd").write_text(f'#!/bin/sh\nexec {sys.executable} -m agent "$@"\n')
    (tmp_path / "wantd").chmod(0o755)
    environ = {**agent.environ, "PATH": f"{tmp_path}:{agent.environ['PATH']}"}
    done = subprocess.run(["sh", "-ec", block[1]], env=environ, capture_output=True, text=True, check=True, timeout=100)
    given = [line.split()[-1] for line in done.stdout.splitlines()]
    assert given[0] == f"{agent.store}/qwen3/Qwen_Qwen3-0.6B-Q4_K_M.gguf"
    assert given[1] == given[2] == f"{agent.store}/qwen3-0.6b"
    assert given[3].endswith("/.llmlb/hub")


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 110
    assert set(re.findall(r"\]\((docs/\w+\.svg)\)", README)) == {"docs/get.svg", "docs/way.svg"}
