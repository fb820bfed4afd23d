"""A real agent process for the tests: its spool, its store, its log, and waiting with a deadline for what it does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DEADLINE_S = 60.0  # far more than anything takes; only a failure waits so long
POLL_S = 0.01
# Of processor time in one turn of an agent's event loop: more fails the test, with the culprit named. 50 ms are
# promised, and `make torture` asks for them. Tests run five at a time on two processors, which most often are threads
# of one core and share its caches: the same work takes up to twice the processor time there.
LOOP_HELD_MS = int(os.environ.get("LOOP_HELD_MS", "100"))

LOOP_HELD = "the event loop was held for"

CHECKOUT = Path(__file__).parent.parent


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait until `condition` gives something true, and give that."""
    deadline = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        time.sleep(POLL_S)


def contents(root: Path) -> dict[Path, bytes]:
    """Every regular file below a directory in which others work; what goes away meanwhile is left out."""
    found: dict[Path, bytes] = {}
    for folder, _, names in os.walk(root):  # not rglob, which fails where a directory goes away under it
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    found[path] = path.read_bytes()
    return found


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without anything that would steer wantd or a Hub client."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANTD_", "HF_", "LLMLB_", "XLLM_", "LLM_", "OLLAMA_", "LLAMA_", "XDG_"))
        and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONPATH": str(CHECKOUT), **more}


class AgentProcess:
    """`python -m agent run` in a directory of its own. Settings are `section__key=value` of the configuration."""

    def __init__(self, root: Path, endpoint: str, *, store: Path | None = None, **settings: Any) -> None:
        self.root = root
        self.spool = root / "spool"
        self.store = store or root / "models"
        self.log_path = root / "agent.log"
        self.spool.mkdir(parents=True, exist_ok=True)
        self.environ = clean_environment(
            HOME=str(root),
            HF_ENDPOINT=endpoint,
            WANTD_SPOOL__DIR=str(self.spool),
            WANTD_STORE__DIR=str(self.store),
            WANTD_HTTP__LISTEN="",  # agents of other tests run beside this one, and a port is there once
            WANTD_DEBUG_LOOP_MS=str(LOOP_HELD_MS),
        )
        self.set(**settings)
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: list[str] = []  # of its command: who runs it, and where

    def set(self, **settings: Any) -> None:
        """Settings for the next start; capitals are environment variables as they are."""
        for name, value in settings.items():
            self.environ[name if name.isupper() else f"WANTD_{name.upper()}"] = str(value)

    def __enter__(self) -> AgentProcess:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.stop()
        if kind is None:
            self.check_loop()

    def check_loop(self) -> None:
        """Fail where something held the agent's event loop."""
        held = [part.partition("\n20")[0] for part in self.log().split(LOOP_HELD)[1:]]
        assert not held, f"{len(held)} times {LOOP_HELD}{held[0]}"

    def start(self) -> None:
        """Start it, and wait until it serves."""
        served = self.log().count(" serves ")
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", "agent", "run"],
                env=self.environ,
                stdout=log,
                stderr=log,
                cwd=self.root,
            )
        process = self.process
        wait_until(lambda: self.log().count(" serves ") > served or process.poll() is not None, "the agent serves")
        assert process.poll() is None, self.log()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(15)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process
        self.process.kill()
        self.process.wait()

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def log(self) -> str:
        """All that it has said."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def rss_bytes(self) -> int:
        """Its peak resident set."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def cpu_s(self) -> float:
        """Processor seconds it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def drop(self, name: str, content: str | bytes | dict[str, Any] | list[Any] = "") -> Path:
        """Write a want as most programs do: a temporary file beside it, then a rename."""
        if isinstance(content, (dict, list)):
            content = json.dumps(content)
        path = self.spool / f"{name}.want"
        temp = path.parent / f".{path.name}.tmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        temp.write_bytes(content.encode() if isinstance(content, str) else content)
        temp.rename(path)
        return path

    def progress(self, name: str) -> dict[str, Any] | None:
        """The answer to a want, or None. Fails when it is torn: that must never be seen."""
        try:
            text = (self.spool / f"{name}.progress").read_bytes()
        except FileNotFoundError:
            return None
        answer: dict[str, Any] = json.loads(text)
        return answer

    def wait(self, name: str, *states: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until a want is in one of the states (`ready` or `failed` if none are given)."""
        wanted = states or ("ready", "failed")
        seen: list[Any] = [None]

        def there() -> dict[str, Any] | None:
            answer = seen[0] = self.progress(name)
            return answer if answer and answer["state"] in wanted else None

        try:
            found: dict[str, Any] = wait_until(there, f"{name} {' or '.join(wanted)}", deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; its answer is {seen[0]}; the log ends:\n{self.log()[-3000:]}") from None
        return found

    def ready(self, name: str, deadline_s: float = DEADLINE_S) -> str:
        """Wait until a want is ready, and give the path of its (first) model."""
        answer = self.wait(name, deadline_s=deadline_s)
        assert answer["state"] == "ready", answer["error"]
        path: str = answer["models"][0]["path"]
        return path

    def failed(self, name: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
        """Wait until a want has failed, and give its error."""
        answer = self.wait(name, deadline_s=deadline_s)
        assert answer["state"] == "failed", answer
        error: dict[str, Any] = answer["error"]
        assert error["message"], error
        assert error["hint"], error
        return error

    def wantd(self, *arguments: str, timeout: float = 60, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of wantd with the same settings."""
        return subprocess.run(
            [sys.executable, "-m", "agent", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=self.root,
            **more,
        )


def states_of(agent: AgentProcess, names: Iterable[str]) -> dict[str, int]:
    """How many of the wants are in which state; `none` where there is no answer."""
    counts: dict[str, int] = {}
    for name in names:
        answer = agent.progress(name)
        state = answer["state"] if answer else "none"
        counts[state] = counts.get(state, 0) + 1
    return counts


def wait_all_ready(agent: AgentProcess, names: list[str], deadline_s: float = 120.0) -> None:
    """Wait until every want is ready; a failure ends the wait at once."""
    left = set(names)

    def done() -> bool:
        for name in list(left):
            answer = agent.progress(name)
            if answer and answer["state"] == "ready":
                left.discard(name)
            assert not answer or answer["state"] != "failed", answer["error"]
        return not left

    try:
        wait_until(done, "all ready", deadline_s)
    except AssertionError as error:
        counts = states_of(agent, names)
        raise AssertionError(f"{error}; {counts}; the log ends:\n{agent.log()[-3000:]}") from None
