"""What the torture chamber found before the first release, each fault in a test of its own (CHANGELOG, 0.1.0)."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.disk import TEMP_PREFIX
from agent.errors import Code, WantdError
from agent.net.client import JSON_MARKS, Response
from agent.spool.watcher import HINTS_MAX, Bell
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.locks import Locks, read_holder
from agent.store.sweep import debris, remove, remove_unfinished
from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess
from tests.store.builders import make_layout, put

KEY = "ab" * 32


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(str(tmp_path / "models"))


def cleared(layout: Layout) -> list[str]:
    """What is left of the partials once the debris has gone."""
    for left in debris(layout, Inventory(layout)):
        assert remove(left, layout, Locks())
    return sorted(os.listdir(layout.partial))


def test_temporary_files_of_a_killed_agent_go_and_the_partial_stays(layout: Layout) -> None:
    for path in (layout.part(KEY), layout.journal(KEY), f"{layout.partial}/{TEMP_PREFIX}7f.tmp"):
        put(path, b"bytes")
        os.utime(path, (1000.0, 1000.0))
    remove_unfinished(layout, Locks())
    assert cleared(layout) == [f"{KEY}.json", f"{KEY}.part"]


def test_a_partial_that_was_published_before_the_kill_goes(layout: Layout) -> None:
    published = put(f"{layout.root}/qwen3/m-Q4_K_M.gguf", b"weights")
    os.link(published, layout.part("cd" * 20))
    put(layout.journal("cd" * 20), b"{}")
    assert cleared(layout) == []


def test_a_partial_that_is_in_a_stage_stays(layout: Layout) -> None:
    put(layout.part(KEY), b"bytes")
    os.mkdir(f"{layout.partial}/stage-qwen3~1")
    os.link(layout.part(KEY), f"{layout.partial}/stage-qwen3~1/m.gguf")
    assert f"{KEY}.part" in cleared(layout)


async def test_a_flood_in_one_directory_drowns_no_hint_about_another(tmp_path: Path) -> None:
    bell = Bell(asyncio.get_running_loop())
    for number in range(3 * HINTS_MAX):
        bell.ring(f"{tmp_path}/bad/{number}.want")
    bell.ring(f"{tmp_path}/good/x.want", closed=True)
    await asyncio.sleep(0)
    hints = await bell.wait(10)
    assert hints.folders == {f"{tmp_path}/bad"}
    assert not hints.everything
    assert hints.paths[f"{tmp_path}/good/x.want"] is True
    assert len(hints.paths) == HINTS_MAX + 1


def test_json_that_takes_twenty_times_its_size_in_memory_is_refused() -> None:
    response = Response(200, "http://hub/api", {}, b"[" + b"[]," * JSON_MARKS + b"0]")
    with pytest.raises(WantdError) as caught:
        response.json()
    assert caught.value.code is Code.HUB_PROTOCOL


def test_what_a_lock_file_says_is_shown_as_one_line_of_ascii(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text('{"pid": 1, "host": "evil\\u001b[31m\\n\\u202e", "started_at": "\\u0080"}')
    shown = str(read_holder(str(path)))
    assert shown.isascii()
    assert "\n" not in shown
    assert "\x1b" not in shown


@pytest.fixture
def torture_agent(make_agent: Callable[..., AgentProcess]) -> AgentProcess:
    agent = make_agent(policy__allow="any", transfer__connections=1)
    agent.start()
    return agent


def test_a_want_for_a_model_that_came_this_very_moment_needs_no_network(
    torture_agent: AgentProcess, hub: HubProcess
) -> None:
    hub.commit("found/quick", {"m-Q4_K_M.gguf": random.Random(1).randbytes(2000)})
    began = time.monotonic()
    torture_agent.drop("first", "found/quick")
    torture_agent.ready("first")
    hub.reset()
    torture_agent.drop("second", "found/quick")
    torture_agent.ready("second")
    print(f"\nthe second want came after {time.monotonic() - began:.1f} s")
    assert hub.stats()["recent"] == []


def test_two_models_with_one_file_in_common_fetch_it_once(torture_agent: AgentProcess, hub: HubProcess) -> None:
    data = random.Random(2).randbytes(2_000_000)
    hub.commit("found/one", {"m-Q4_K_M.gguf": data})
    hub.commit("found/two", {"n-Q4_K_M.gguf": data})
    hub.fault("cdn/*", max_rate=2_000_000)
    torture_agent.drop("one", "found/one")
    torture_agent.drop("two", "found/two")
    for name in ("one", "two"):
        assert Path(torture_agent.ready(name)).read_bytes() == data
    sent = sum(count for key, count in hub.stats()["bytes_sent"].items() if key.startswith("found/"))
    assert sent < 1.5 * len(data)
    assert "went away" not in torture_agent.log()
    wait_until(lambda: not os.listdir(torture_agent.store / ".partial"), "no partial is left")


async def test_any_number_of_rings_is_one_wake_up_of_the_loop(tmp_path: Path) -> None:
    class Loop:
        woken = 0

        def call_soon_threadsafe(self, *_: object) -> None:
            self.woken += 1

    loop = Loop()
    bell = Bell(loop)  # type: ignore[arg-type]
    for number in range(500):
        bell.ring(f"{tmp_path}/{number}.want")
    assert loop.woken == 1
    bell.wake()
    assert len((await bell.wait(10)).paths) == 500
    bell.ring(None)
    assert loop.woken == 2, "the next ring wakes it again"


SIGNALLED = """
import asyncio, os, signal, sys
from agent.cli.run import _on_signal

async def main():
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    _on_signal(loop, signal.SIGTERM, told.set)
    for _ in range(100_000):  # wake-ups that the loop has had no time to read
        loop._write_to_self()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(told.wait(), 20)

asyncio.run(main())
"""


def test_a_signal_that_comes_while_the_loop_is_full_of_wake_ups_is_not_lost() -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
