"""Hooks hear of each want that is ready or has failed, at least once, whatever kills the agent; and hold nothing up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config import Hook
from agent.core.retry import HOOK_GIVE_UP_S, HOOK_RETRY_MIN_S
from agent.errors import Code
from agent.net.budget import HostBudgets
from agent.reports.hook_calls import HookCalls
from agent.reports.hooks import AT_ONCE, Hooks, Told
from agent.state.feed import Feed
from agent.state.ticket import Ticket
from tests.fakes import FakeClock, Inline, error, logged, settle, ticket
from tests.harness import AgentProcess, wait_until

READY = Hook(on=["ready"], exec=["/bin/ready"])
BOTH = Hook(exec=["/bin/both"])


class Bench:
    """Hooks with everything that they work with in the test's hands. `again` is an agent that was started anew."""

    def __init__(self, folder: Path) -> None:
        asyncio.get_running_loop().set_default_executor(Inline())
        self.folder = folder
        self.clock = FakeClock()
        self.tickets: dict[str, Ticket] = {}
        self.config = [BOTH]
        self.heard: list[tuple[str, str, str]] = []  # hook, want, what it was given
        self.problem: str | None = None
        self.gate: asyncio.Event | None = None
        self.again()

    def again(self) -> None:
        self.feed = Feed()
        self.hooks = Hooks(
            self.feed,
            self.tickets,
            self.clock,
            lambda: self.config,
            Told(f"{self.folder}/told"),
            self.document,
            self.tell,
            lambda: 0.0,
        )

    async def document(self, one: Ticket) -> bytes:
        return one.state.value.encode()

    async def tell(self, hook: Hook, data: bytes, want: str) -> str | None:
        self.heard.append((hook.exec[0], want, data.decode()))
        if self.gate:
            await self.gate.wait()
        return self.problem

    def fail(self, name: str) -> Ticket:
        one = self.tickets.setdefault(f"/spool/{name}.want", ticket(name))
        one.error = error(Code.WANT_INVALID)
        self.feed.changed(one)
        return one

    async def turn(self, seconds: float = 0.0) -> None:
        self.clock.pass_(seconds)
        await self.hooks.look()
        self.hooks._start_due()
        await settle()


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_what_was_told_is_not_told_again_not_even_by_the_next_agent(bench: Bench) -> None:
    one = bench.fail("a")
    await bench.turn()
    bench.feed.changed(one)
    await bench.turn()
    bench.again()
    bench.fail("a")
    await bench.turn()
    assert bench.heard == [("/bin/both", "/spool/a.want", "failed")]


async def test_what_an_agent_did_not_live_to_note_is_told_by_the_next_one(bench: Bench) -> None:
    bench.gate = asyncio.Event()  # the first agent is killed while the hook runs
    bench.fail("a")
    await bench.turn()
    bench.again()
    bench.gate = None
    bench.fail("a")
    await bench.turn()
    assert len(bench.heard) == 2


async def test_a_failing_hook_is_tried_again_until_it_succeeds(bench: Bench) -> None:
    bench.problem = "exit status 1"
    bench.fail("a")
    with logged("WARNING") as lines:
        await bench.turn()
    assert "exit status 1; retrying in 2 s" in lines[0]
    await bench.turn(HOOK_RETRY_MIN_S - 0.1)
    assert len(bench.heard) == 1
    bench.problem = None
    await bench.turn(0.2)
    await bench.turn(HOOK_GIVE_UP_S)
    assert len(bench.heard) == 2


async def test_after_a_day_it_is_given_up_and_said(bench: Bench) -> None:
    bench.problem = "it answered 500"
    bench.fail("a")
    await bench.turn()
    with logged("ERROR") as lines:
        await bench.turn(HOOK_GIVE_UP_S + 1)
    assert "given up" in lines[0]
    await bench.turn(HOOK_GIVE_UP_S)
    assert len(bench.heard) == 2


async def test_a_want_that_is_tried_again_is_news_again(bench: Bench) -> None:
    one = bench.fail("a")
    await bench.turn()
    one.error = None
    bench.feed.changed(one)
    await bench.turn()
    bench.fail("a")
    await bench.turn()
    assert len(bench.heard) == 2


async def test_a_hook_hears_only_what_it_asked_for_and_one_that_is_added_of_all_that_is_there(bench: Bench) -> None:
    bench.config = [READY]
    bench.fail("a")
    await bench.turn()
    assert bench.heard == []
    bench.config = [READY, BOTH]
    await bench.turn()
    assert [hook for hook, _, _ in bench.heard] == ["/bin/both"]
    bench.config = []
    bench.fail("b")
    await bench.turn()
    assert len(bench.heard) == 1


async def test_few_run_at_once_and_the_rest_has_its_turn(bench: Bench) -> None:
    bench.gate = asyncio.Event()
    for number in range(AT_ONCE + 3):
        bench.fail(f"{number}")
    await bench.turn()
    assert len(bench.heard) == AT_ONCE
    bench.gate.set()
    await settle()
    await bench.turn()
    assert len(bench.heard) == AT_ONCE + 3


async def test_what_is_noted_does_not_grow_without_end(tmp_path: Path) -> None:
    told = Told(f"{tmp_path}/told")
    for number in range(1200):
        told.note("+", [f"{number:016x}"])
        told.note("-", [f"{number:016x}"])
    told.note("+", ["a" * 16])
    again = Told(f"{tmp_path}/told")
    assert "a" * 16 in again
    assert (tmp_path / "told").read_text() == f"+{'a' * 16}\n"


# Calls


def script(folder: Path, text: str) -> list[str]:
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return [str(path)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cat > $OUT; echo $WANTD_WANT $HF_TOKEN >> $OUT", None),
        ("exit 3", "exit status 3"),
        ("exec sleep 60", "it ran for over 0.2 s and was ended"),
        ("sleep 60 & sleep 60", "it ran for over 0.2 s and was ended"),
    ],
)
async def test_a_program_gets_the_answer_and_no_secret(tmp_path: Path, text: str, problem: str | None) -> None:
    out = tmp_path / "out"
    environ = {"PATH": "/usr/bin:/bin", "HF_TOKEN": "hf_secret"}
    limit_s = 0.2 if problem and "over" in problem else 60.0
    calls = HookCalls(environ, HostBudgets(), limit_s)
    argv = script(tmp_path, text.replace("$OUT", str(out)))
    assert await calls.tell(Hook(exec=argv), b'{"state": "ready"}', "/spool/a.want") == problem
    if problem is None:
        assert out.read_text() == '{"state": "ready"}/spool/a.want\n'


async def test_a_program_that_is_not_there_or_reads_nothing_is_no_fault_of_ours(tmp_path: Path) -> None:
    calls = HookCalls({"PATH": "/usr/bin:/bin"}, HostBudgets())
    assert "cannot run '/nowhere'" in (await calls.tell(Hook(exec=["/nowhere"]), b"{}", "w") or "")
    assert await calls.tell(Hook(exec=["/bin/true"]), b"x" * 10_000_000, "w") is None


async def test_a_url_gets_a_post(tmp_path: Path) -> None:
    asked: list[bytes] = []
    status = b"204 No Content"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        asked.append(head.split(b"\r\n")[0] + await reader.readexactly(length))
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    calls = HookCalls({}, HostBudgets())
    assert await calls.tell(Hook(url=url), b'{"state": "ready"}', "w") is None
    assert asked == [b'POST /hook HTTP/1.1{"state":"ready"}'] or asked == [b'POST /hook HTTP/1.1{"state": "ready"}']
    status = b"500 Internal Server Error"
    assert await calls.tell(Hook(url=url), b"{}", "w") == "it answered 500"
    server.close()
    assert await calls.tell(Hook(url=url), b"{}", "w")


def test_each_want_is_told_at_least_once_through_kills(make_agent: Callable[..., AgentProcess], tmp_path: Path) -> None:
    """The hook is slow, and the agent is killed at moments that nobody chose."""
    agent = make_agent()
    out = tmp_path / "out"
    argv = script(tmp_path, f'sleep 0.05; grep -o \'"want": "[^"]*"\' >> {out}')
    config = agent.root / "config.toml"
    config.write_text(f"[[hook]]\nexec = {json.dumps(argv)}\n")
    agent.environ["XDG_CONFIG_HOME"] = str(agent.root)
    (agent.root / "wantd").mkdir()
    config.rename(agent.root / "wantd" / "config.toml")
    names = [f"w{number}" for number in range(12)]
    for name in names:
        agent.drop(name, "qwen3" if int(name[1:]) % 2 else "no-such-model")

    def told() -> set[str]:
        lines = out.read_text().splitlines() if out.exists() else []
        return {line.split('"')[3].removesuffix(".want") for line in lines}

    for kills in range(3):
        agent.start()
        wait_until(lambda kills=kills: len(told()) >= 2 * (kills + 1), "some are told")  # type: ignore[misc]
        agent.kill()
    with agent:
        wait_until(lambda: told() == set(names), "all are told")
        assert agent.stop() == 0
