"""`wantd status`: what it lists, and what it only counts."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from agent.core.progress import AgentInfo, ModelProgress, WantInfo, render, show_model
from agent.core.states import State
from agent.core.waits import ForSlot
from agent.reports.status import LISTED_MOST, collect
from tests.fakes import error

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def put(spool: Path, name: str, progress: ModelProgress | None) -> None:
    (spool / f"{name}.want").touch()
    if progress:
        info = WantInfo(f"{name}.want", 1, NOW, NOW, None, {})
        data, _ = render(info, [show_model(name, progress)], AgentInfo(1, "host", "0"), NOW)
        (spool / f"{name}.progress").write_bytes(data)


def test_ready_wants_are_counted_and_of_the_others_a_screen_is_listed(tmp_path: Path) -> None:
    spool, waiting = tmp_path / "spool", ModelProgress()
    spool.mkdir()
    waiting.go(State.WAITING, waiting=ForSlot())
    for number in range(LISTED_MOST + 20):
        put(spool, f"failed-{number:03d}", ModelProgress.failed(error()))
        put(spool, f"ready-{number:03d}", ModelProgress(state=State.READY))
    put(spool, "waiting", waiting)
    put(spool, "silent", None)
    short = collect(str(spool), str(tmp_path / "store"), time.time(), everything=False)
    assert short.counts == {"failed": LISTED_MOST + 20, "ready": LISTED_MOST + 20, "unanswered": 1, "waiting": 1}
    assert [want["state"] for want in short.wants] == ["failed"] * LISTED_MOST + ["unanswered", "waiting"]
    whole = collect(str(spool), str(tmp_path / "store"), time.time(), everything=True)
    assert whole.counts == short.counts
    assert len(whole.wants) == sum(whole.counts.values())


def test_a_progress_file_that_is_none_of_wantds_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.want").touch()
    (tmp_path / "a.progress").write_text("[1]")
    status = collect(str(tmp_path), str(tmp_path / "store"), time.time(), everything=False)
    assert status.wants[0]["why"] == "its progress file is not one of wantd's"


def test_a_fifo_or_a_link_in_the_place_of_a_progress_file_blocks_nothing_and_shows_nothing(tmp_path: Path) -> None:
    spool, secret = tmp_path / "spool", tmp_path / "secret"
    spool.mkdir()
    secret.write_text('{"state": "secret"}')
    for name in ("fifo", "link"):
        (spool / f"{name}.want").touch()
    os.mkfifo(spool / "fifo.progress")
    (spool / "link.progress").symlink_to(secret)
    for everything in (False, True):
        status = collect(str(spool), str(tmp_path / "store"), time.time(), everything=everything)
        assert [want["state"] for want in status.wants] == ["unanswered", "unanswered"]
