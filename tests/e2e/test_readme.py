"""What the README shows runs as it is shown."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import Code, Exit
from tests.harness import CHECKOUT, AgentProcess

README = (CHECKOUT / "README.md").read_text()

C_PROGRAM = "#include <stdio.h>\n#include <string.h>\n#include <unistd.h>\nint main(void) {\n%s\nreturn 0; }\n"
JAVA_PROGRAM = "import java.nio.file.*;\nclass Want { public static void main(String[] a) throws Exception {\n%s\n} }\n"


def snippet(language: str) -> str:
    """The code block that follows the language's name in the section on languages."""
    section = README.split("## Ask from any language")[1].split("\n## ")[0]
    found = re.search(rf"^{language}[^\n]*:\n```[a-z]+\n(.*?)```", section, re.MULTILINE | re.DOTALL)
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


def test_every_error_code_is_listed_with_its_exit_code_and_whether_it_is_retried() -> None:
    from agent.errors import RETRYABLE

    listed = re.findall(r"^\| `([a-z_]+)`( ↻)? \| ([0-9]+) \|", README, re.MULTILINE)
    assert listed == [(c.value, " ↻" if c in RETRYABLE else "", str(Exit.of(c))) for c in Code]
