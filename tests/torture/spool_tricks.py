"""The hostile spool: whoever may write there tries to harm, to block and to steal, and harms nobody but himself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent.embedded_hub.process import HubProcess
from tests.harness import AgentProcess, wait_until
from tests.torture.cases import Case
from tests.torture.lives import world

FLOOD = 50_000
SERVED_S = 2.0  # the promise about somebody else's want, however many bad ones there are
SECRET = "secret-model-of-somebody-else"
TIB = 2**40  # bytes


def hub() -> HubProcess:
    return world().hub


def agent_in(root: Path, **more: Any) -> AgentProcess:
    return AgentProcess(root, hub().endpoint, catalog__path=world().catalog, scheduler__rescan_s=1, **more)


def good_is_served(agent: AgentProcess, name: str = "good") -> None:
    (agent.spool / f"{name}.want").unlink(missing_ok=True)
    agent.drop(name, "nest")
    agent.ready(name)


# -- things that are no regular files, or other people's ----------------------------------------------------------


def plant(kind: str, path: Path, root: Path) -> None:
    victim = root / "victim"
    victim.write_text(SECRET)
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling link":
        path.symlink_to(root / "nothing")
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "link to /dev/zero":
        path.symlink_to("/dev/zero")
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(path.parent):
            listening.bind(path.name)
    elif kind == "device":
        os.mknod(path, 0o666 | 0o020000, os.makedev(1, 5))
    elif kind == "directory":
        path.mkdir()
    elif kind == "sparse TiB":
        with path.open("wb") as file:
            file.truncate(TIB)
    elif kind == "unreadable":
        path.write_text("nest")
        path.chmod(0)


KINDS = {
    "link": "want_unreadable",
    "dangling link": "want_unreadable",
    "link to itself": "want_unreadable",
    "link to /dev/zero": "want_unreadable",
    "FIFO": "want_unreadable",
    "socket": "want_unreadable",
    "device": "want_unreadable",
    "directory": "want_unreadable",
    "sparse TiB": "want_too_large",
}


def kinds(root: Path) -> int:
    """A want that is no plain file: said, never followed, blocked on or read."""
    with agent_in(root / "a") as agent:
        for kind in KINDS:
            plant(kind, agent.spool / f"{kind.replace('/', '_')}.want", root)
        for kind, code in KINDS.items():
            name = kind.replace("/", "_")
            assert agent.failed(name)["code"] == code, kind
            assert SECRET not in (agent.spool / f"{name}.progress").read_text()
        good_is_served(agent)
        assert (root / "victim").read_text() == SECRET
    return len(KINDS)


def hard_link(root: Path) -> int:
    """A hard link to somebody else's file: read as any want, never written; what it says is shown cut and escaped."""
    with agent_in(root / "a") as agent:
        theirs = root / "theirs"
        theirs.write_text("nest")
        before = theirs.stat()
        os.link(theirs, agent.spool / "x.want")
        agent.ready("x")
        os.link(theirs, agent.spool / "y.progress")  # an answer's name taken by somebody's file
        agent.drop("y", "nest")
        wait_until(lambda: ready(agent.spool / "y.progress"), "y is ready")
        now = theirs.stat()
        assert theirs.read_text() == "nest"
        assert (now.st_mtime_ns, now.st_mode, now.st_uid) == (before.st_mtime_ns, before.st_mode, before.st_uid)
    return 2


def planted_progress(root: Path) -> int:
    """An answer's name taken beforehand: a link is replaced, not followed; a directory is left, and the log says so."""
    with agent_in(root / "a") as agent:
        victim = root / "victim"
        victim.write_text(SECRET)
        (agent.spool / "x.progress").symlink_to(victim)
        (agent.spool / "gone.progress").symlink_to(root / "nothing")
        (agent.spool / "d.progress").mkdir()
        os.mkfifo(agent.spool / "f.progress")
        for name in ("x", "gone", "d", "f"):
            agent.drop(name, "nest")
        for name in ("x", "gone", "f"):
            answer = agent.spool / f"{name}.progress"
            wait_until(lambda answer=answer: not answer.is_symlink() and answer.is_file() and ready(answer), name)
        wait_until(lambda: "no progress file beside" in agent.log(), "the log says why there is none")
        assert victim.read_text() == SECRET
        assert not (root / "nothing").exists()
        assert (agent.spool / "d.progress").is_dir()
        good_is_served(agent)
    return 4


SWAP = """
import os, sys
want, victim, stop = sys.argv[1:4]
while not os.path.exists(stop):
    with open(want + ".a", "w") as file:
        file.write("nest")
    os.rename(want + ".a", want)
    os.symlink(victim, want + ".b")
    os.rename(want + ".b", want)
"""


def swapped(root: Path) -> int:
    """A want that is a file and a link in turn, thousands of times: what the link leads to is never read."""
    victim, stop = root / "victim", root / "stop"
    victim.write_text(SECRET)
    with agent_in(root / "a") as agent:
        want = agent.spool / "x.want"
        swapper = subprocess.Popen([sys.executable, "-c", SWAP, str(want), str(victim), str(stop)])
        try:
            looks = 0
            until = time.monotonic() + 3
            while time.monotonic() < until:
                answer = agent.progress("x")
                looks += answer is not None
                assert SECRET not in json.dumps(answer)
            good_is_served(agent)
        finally:
            stop.touch()
            swapper.wait(30)
        assert looks
        assert SECRET not in agent.log()
        want.unlink(missing_ok=True)
        agent.drop("x", "nest")
        agent.wait("x", "ready")
    return 1


# -- names ----------------------------------------------------------------------------------------------------------

NAMES: list[bytes] = [
    b"new\nline",
    b"tab\tbell\x07",
    b"invalid-\xff\xfe-utf8",
    b"surrogate-\xed\xa0\x80",
    "right\u202eto left".encode(),
    "zero\u200bwidth".encode(),
    b"n" * (255 - len(b".progress")),
    b"l" * 250,  # its answer's name is longer than the file system allows
    b"-rf",
    b" ",
    b"$(touch pwned)",
    b"%s%n{0}",
    b"<red>{message}<red>",
    b"\x1b[31mred",
    b"a.want",
    b"w.progress",
]


def names(root: Path) -> int:
    """Any name that a file can have: served, and shown in the log as text."""
    with agent_in(root / "a") as agent:
        spool = os.fsencode(agent.spool)
        for name in NAMES:
            with open(spool + b"/" + name + b".want", "w") as file:
                file.write("nest")
        answerable = [name for name in NAMES if len(name + b".progress") <= 255]

        def all_ready() -> bool:
            return all(ready(spool + b"/" + name + b".progress") for name in answerable)

        wait_until(all_ready, "all are ready")
        wait_until(lambda: "no progress file beside" in agent.log(), "the one without a place for its answer is told")
        good_is_served(agent)
        log = agent.log_path.read_bytes()
        assert not any(byte in log for byte in (b"\x1b", b"\x07", "\u202e".encode(), b"\xff")), "raw text in the log"
        assert agent.wantd("status").returncode == 0
        assert agent.wantd("status", "--json").returncode == 0
        assert not (agent.root / "pwned").exists()
    return len(NAMES)


def ready(path: bytes | Path) -> bool:
    with contextlib.suppress(FileNotFoundError, ValueError), open(path, "rb") as file:
        return bool(json.loads(file.read())["state"] == "ready")
    return False


# -- contents -------------------------------------------------------------------------------------------------------

CONTENTS: dict[str, tuple[bytes, str]] = {
    "deep": (b"[" * 10_000 + b"]" * 10_000, "want_invalid"),
    "deep-objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "want_invalid"),
    "nan": (b'{"model": "nest", "priority": NaN}', "want_invalid"),
    "infinity": (b'{"model": "nest", "priority": 1e999}', "want_invalid"),
    "huge-number": (b'{"model": "nest", "priority": ' + b"9" * 5000 + b"}", "want_invalid"),
    "surrogate": (b'{"model": "\\ud800"}', "want_invalid"),
    "surrogate-raw": (b'{"model": "\xed\xa0\x80"}', "want_invalid"),
    "not-utf8": (b"\xff\xfe\x00", "want_invalid"),
    "utf16": ("nest".encode("utf-16"), "want_invalid"),
    "torn": (b'{"model": "ne', "want_invalid"),
    "torn-list": (b'[{"model": "nest"}, ', "want_invalid"),
    "nul": (b"nest\0", "want_invalid"),
    "zeros": (bytes(4096), "want_invalid"),
    "null-model": (b'{"model": null}', "want_invalid"),
    "list-model": (b'{"model": ["nest"]}', "want_invalid"),
    "empty-list": (b"[]", "want_invalid"),
    "unknown-key": (b'{"model": "nest", "__proto__": {}}', "want_invalid"),
    "path": (b"../../etc/passwd", "want_invalid"),
    "absolute": (b"/etc/passwd", "want_invalid"),
    "path-files": (b'{"model": "nest", "files": ["../../x"]}', "forbidden_path"),
    "url": (b"https://user:pass@example.com/x", "want_invalid"),
    "large": (b"#" * (1024 * 1024 + 1), "want_too_large"),
    "many": (b"\n".join(b"m" for _ in range(10_001)), "want_invalid"),
    "long-time": (b'{"model": "nest", "not_before": "99999-01-01T00:00:00Z"}', "want_invalid"),
    "control": (b'{"model": "nest\\u001b[31m"}', "want_invalid"),
}  # fmt: skip
LEGAL = {
    "duplicate-keys": b'{"model": "no-such", "model": "nest"}',
    "bom-crlf": b"\xef\xbb\xbfnest\r\n\r\n",
    "comment-megabyte": b"nest #" + b"x" * 1_000_000,
}


def contents(root: Path) -> int:
    """Whatever a want may say: its own error, with a hint, and the next one works."""
    with agent_in(root / "a") as agent:
        for name, (content, _) in CONTENTS.items():
            agent.drop(name, content)
        for name, content in LEGAL.items():
            agent.drop(name, content)
        for name, (_, code) in CONTENTS.items():
            error = agent.failed(name)
            assert error["code"] in (code, "model_not_supported"), (name, error)
            assert error["message"].isascii(), error
        for name in LEGAL:
            agent.ready(name)
        good_is_served(agent)
        assert agent.rss_bytes() < 150_000_000, agent.rss_bytes()
    return len(CONTENTS) + len(LEGAL)


WRITER = """
import os, sys, time
path, text = sys.argv[1], b'{"model": "nest", "labels": {"who": "slow"}}'
fd = os.open(path, os.O_WRONLY | os.O_CREAT)
for at in range(len(text)):
    os.write(fd, text[at:at + 1])
    time.sleep(0.02)
"""


def torn_writes(root: Path) -> int:
    """A want that is written byte by byte, and one that is cut and grown in place: no half of it is ever acted on."""
    with agent_in(root / "a") as agent:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(agent.spool / "slow.want")])
        while writer.poll() is None:
            assert (agent.progress("slow") or {}).get("state") != "failed", "half a want was read"
            time.sleep(0.01)
        agent.ready("slow")
        with (agent.spool / "grown.want").open("w") as file:
            for piece in ('{"model": ', '"ne', 'st"}'):
                file.write(piece)
                file.flush()
                time.sleep(0.3)
                assert agent.progress("grown") is None or agent.progress("grown")["state"] != "failed"  # type: ignore[index]
        agent.ready("grown")
    return 2


# -- floods ---------------------------------------------------------------------------------------------------------

BAD = """
import os, sys
folder, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    with open(f"{folder}/bad{number}.want", "w") as file:
        file.write('{"modle": "x"}' if number % 3 else "no/such-model-%d" % number)
"""


def rubbish(count: int, *, timed: bool) -> Callable[[Path], int]:
    """One producer's flood of bad wants; another's good one is served while it lasts."""

    def run(root: Path) -> int:
        with agent_in(root / "a") as agent:
            good_is_served(agent, "first")
            bad, good = agent.spool / "bad", agent.spool / "good"
            bad.mkdir()
            good.mkdir()
            producer = subprocess.Popen([sys.executable, "-c", BAD, str(bad), str(count)])
            times = []
            number = 0
            while producer.poll() is None or number < 5:
                began = time.monotonic()
                agent.drop(f"good/g{number}", "nest")
                agent.ready(f"good/g{number}")
                times.append(time.monotonic() - began)
                number += 1
            last = f"bad/bad{count - 1}"
            wait_until(lambda: (agent.progress(last) or {}).get("state") == "failed", "the last bad one is told", 600)
            took = " ".join(f"{seconds:.1f}" for seconds in times)
            print(f"\n{count} bad wants, and good ones beside them: {took} s")
            assert not timed or max(times) < SERVED_S, f"a good want took {max(times):.2f} s"
            shutil.rmtree(bad, ignore_errors=True)
        return count

    return run


def deep_tree(root: Path) -> int:
    """Folders without end, in circles, and more of them than anybody needs: only four levels are looked at."""
    with agent_in(root / "a") as agent:
        folder = agent.spool
        for level in range(30):
            folder = folder / f"d{level}"
            folder.mkdir()
            (folder / "x.want").write_text("nest")
        (agent.spool / "circle").symlink_to(agent.spool)
        (agent.spool / ".hidden").mkdir()
        (agent.spool / ".hidden" / "h.want").write_text("nest")
        for number in range(500):
            (agent.spool / f"empty{number}").mkdir()
        agent.ready("d0/d1/d2/d3/x")
        good_is_served(agent)
        assert agent.progress("d0/d1/d2/d3/d4/x") is None
        assert agent.progress("circle/x") is None
        assert agent.progress(".hidden/h") is None
    return 3


def cases(_: int) -> Iterator[Case]:
    yield Case("wants that are no plain files", kinds, needs=("root",), faults=len(KINDS))
    yield Case("hard links to somebody else's file", hard_link, faults=2)
    yield Case("planted answers", planted_progress, faults=4)
    yield Case("a want swapped for a link", swapped)
    yield Case("names", names, faults=len(NAMES))
    yield Case("contents", contents, faults=len(CONTENTS) + len(LEGAL))
    yield Case("torn writes", torn_writes, faults=2)
    yield Case("deep and circular folders", deep_tree, faults=3)
    yield Case("1,500 bad wants beside good ones", rubbish(1500, timed=False), faults=1500)
    yield Case("50,000 bad wants beside good ones", rubbish(FLOOD, timed=True), brief=False, faults=FLOOD)
