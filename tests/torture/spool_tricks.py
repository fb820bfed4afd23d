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
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agent.errors import Exit
from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess
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


KINDS = {  # what a want may be, the row it belongs to, and the error
    "link": ("symbolic links", "want_unreadable"),
    "dangling link": ("symbolic links", "want_unreadable"),
    "link to itself": ("symbolic links", "want_unreadable"),
    "link to /dev/zero": ("symbolic links", "want_unreadable"),
    "FIFO": ("FIFOs", "want_unreadable"),
    "socket": ("sockets", "want_unreadable"),
    "device": ("devices", "want_unreadable"),
    "directory": ("directories", "want_unreadable"),
    "sparse TiB": ("a sparse file of 1 TiB", "want_too_large"),
}


def kinds(root: Path) -> None:
    """A want that is no plain file: said, never followed, blocked on or read."""
    with agent_in(root / "a") as agent:
        for kind in KINDS:
            plant(kind, agent.spool / f"{kind.replace('/', '_')}.want", root)
        for kind, (_, code) in KINDS.items():
            name = kind.replace("/", "_")
            assert agent.failed(name)["code"] == code, kind
            assert SECRET not in (agent.spool / f"{name}.progress").read_text()
        good_is_served(agent)
        assert (root / "victim").read_text() == SECRET


def hard_link(root: Path) -> None:
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


def planted_progress(root: Path) -> None:
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
        wait_until(lambda: "cannot write the progress file of" in agent.log(), "the log says why there is none")
        assert victim.read_text() == SECRET
        assert not (root / "nothing").exists()
        assert (agent.spool / "d.progress").is_dir()
        good_is_served(agent)


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


def swapped(root: Path) -> None:
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


# -- names ----------------------------------------------------------------------------------------------------------

NAMES: dict[bytes, str] = {  # and their rows
    b"new\nline": "names with newlines and control characters",
    b"tab\tbell\x07": "names with newlines and control characters",
    b"\x1b[31mred": "names with newlines and control characters",
    b"invalid-\xff\xfe-utf8": "names in invalid UTF-8",
    b"surrogate-\xed\xa0\x80": "names in invalid UTF-8",
    "right\u202eto left".encode(): "names with right-to-left and zero-width marks",
    "zero\u200bwidth".encode(): "names with right-to-left and zero-width marks",
    b"n" * (255 - len(b".progress")): "names of 255 bytes",
    b"l" * 250: "names of 255 bytes",  # its answer's name is longer than the file system allows
    b"-rf": "names that mean something to a shell, a format or a log",
    b" ": "names that mean something to a shell, a format or a log",
    b"$(touch pwned)": "names that mean something to a shell, a format or a log",
    b"%s%n{0}": "names that mean something to a shell, a format or a log",
    b"<red>{message}<red>": "names that mean something to a shell, a format or a log",
    b"a.want": "names that look like wants and progress files",
    b"w.progress": "names that look like wants and progress files",
}


def names(root: Path) -> None:
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
        wait_until(
            lambda: "cannot write the progress file of" in agent.log(), "the log names the one without a progress file"
        )
        good_is_served(agent)
        log = agent.log_path.read_bytes()
        assert not any(byte in log for byte in (b"\x1b", b"\x07", "\u202e".encode(), b"\xff")), "raw text in the log"
        assert agent.wantd("status").returncode == Exit.OK
        assert agent.wantd("status", "--json").returncode == Exit.OK
        assert not (agent.root / "pwned").exists()


def ready(path: bytes | Path) -> bool:
    with contextlib.suppress(FileNotFoundError, ValueError), open(path, "rb") as file:
        return bool(json.loads(file.read())["state"] == "ready")
    return False


# -- contents -------------------------------------------------------------------------------------------------------

CONTENTS: dict[str, tuple[bytes, str, str]] = {  # what it says, the error, and the row
    "deep": (b"[" * 10_000 + b"]" * 10_000, "want_invalid", "JSON of 10,000 levels"),
    "deep-objects": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "want_invalid", "JSON of 10,000 levels"),
    "nan": (b'{"model": "nest", "priority": NaN}', "want_invalid", "NaN and huge numbers"),
    "infinity": (b'{"model": "nest", "priority": 1e999}', "want_invalid", "NaN and huge numbers"),
    "huge-number": (b'{"model": "nest", "priority": ' + b"9" * 5000 + b"}", "want_invalid", "NaN and huge numbers"),
    "surrogate": (b'{"model": "\\ud800"}', "want_invalid", "lone surrogates"),
    "surrogate-raw": (b'{"model": "\xed\xa0\x80"}', "want_invalid", "lone surrogates"),
    "not-utf8": (b"\xff\xfe\x00", "want_invalid", "bytes that are no UTF-8"),
    "utf16": ("nest".encode("utf-16"), "want_invalid", "bytes that are no UTF-8"),
    "torn": (b'{"model": "ne', "want_invalid", "torn JSON"),
    "torn-list": (b'[{"model": "nest"}, ', "want_invalid", "torn JSON"),
    "nul": (b"nest\0", "want_invalid", "bytes that are no UTF-8"),
    "zeros": (bytes(4096), "want_invalid", "bytes that are no UTF-8"),
    "null-model": (b'{"model": null}', "want_invalid", "JSON of another shape"),
    "list-model": (b'{"model": ["nest"]}', "want_invalid", "JSON of another shape"),
    "empty-list": (b"[]", "want_invalid", "JSON of another shape"),
    "unknown-key": (b'{"model": "nest", "__proto__": {}}', "want_invalid", "JSON of another shape"),
    "path": (b"../../etc/passwd", "want_invalid", "paths and URLs"),
    "absolute": (b"/etc/passwd", "want_invalid", "paths and URLs"),
    "path-files": (b'{"model": "nest", "files": ["../../x"]}', "forbidden_path", "paths and URLs"),
    "url": (b"https://user:pass@example.com/x", "want_invalid", "paths and URLs"),
    "large": (b"#" * (1024 * 1024 + 1), "want_too_large", "too much of it"),
    "many": (b"\n".join(b"m" for _ in range(10_001)), "want_invalid", "too much of it"),
    "long-time": (b'{"model": "nest", "not_before": "99999-01-01T00:00:00Z"}', "want_invalid", "NaN and huge numbers"),
    "control": (b'{"model": "nest\\u001b[31m"}', "want_invalid", "lone surrogates"),
}  # fmt: skip
LEGAL = {  # odd, and served
    "duplicate keys": b'{"model": "no-such", "model": "nest"}',
    "a byte-order mark and CRLF": b"\xef\xbb\xbfnest\r\n\r\n",
    "a comment of a megabyte": b"nest #" + b"x" * 1_000_000,
}


def contents(root: Path) -> None:
    """Whatever a want may say: its own error, with a hint, and the next one works."""
    with agent_in(root / "a") as agent:
        for name, (content, _, _) in CONTENTS.items():
            agent.drop(name, content)
        for name, content in LEGAL.items():
            agent.drop(name, content)
        for name, (_, code, _) in CONTENTS.items():
            error = agent.failed(name)
            assert error["code"] in (code, "model_not_supported"), (name, error)
            assert error["message"].isascii(), error
        for name in LEGAL:
            agent.ready(name)
        good_is_served(agent)
        assert agent.rss_bytes() < 150_000_000, agent.rss_bytes()


WRITER = """
import os, sys, time
path, text = sys.argv[1], b'{"model": "nest", "labels": {"who": "slow"}}'
fd = os.open(path, os.O_WRONLY | os.O_CREAT)
for at in range(len(text)):
    os.write(fd, text[at:at + 1])
    time.sleep(0.02)
"""


def torn_writes(root: Path) -> None:
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


# -- floods ---------------------------------------------------------------------------------------------------------

BAD = """
import os, sys
folder, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    with open(f"{folder}/bad{number}.want", "w") as file:
        file.write('{"modle": "x"}' if number % 3 else "no/such-model-%d" % number)
"""


def rubbish(count: int, *, timed: bool) -> Callable[[Path], None]:
    """One producer's flood of bad wants; another's good one is served while it lasts."""

    def run(root: Path) -> None:
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

    return run


def deep_tree(root: Path) -> None:
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


def cases(_: int) -> Iterator[Case]:
    rows = Counter(f"wants that are {row}" for row, _ in KINDS.values())
    yield Case("wants that are no plain files", kinds, needs=("root",), faults=rows)
    yield Case("hard links", hard_link, faults={"hard links to other people's files, as want and as progress file": 2})
    planted = {"a progress file's name that is a link to a victim, a directory, a FIFO": 4}
    yield Case("planted progress files", planted_progress, faults=planted)
    yield Case("a want swapped for a link between two looks, for 3 s", swapped)
    yield Case("names", names, faults=Counter(NAMES.values()))
    says = Counter(f"wants that say: {row}" for _, _, row in CONTENTS.values())
    says |= Counter(f"wants that say: {row}" for row in LEGAL)
    yield Case("contents", contents, faults=says)
    yield Case("torn writes", torn_writes, faults={"wants written byte by byte, and grown in place": 2})
    yield Case("deep and circular folders", deep_tree, faults={"folders too deep, in a circle, and hidden": 3})
    yield flooded(1500, brief=True)
    yield flooded(FLOOD, brief=False)


def flooded(count: int, *, brief: bool) -> Case:
    """One flood, as a case; timed in the long form alone."""
    row = f"{count:,} bad wants of one producer, beside good ones of another"
    return Case(f"{count:,} bad wants", rubbish(count, timed=not brief), brief, faults={row: count})
