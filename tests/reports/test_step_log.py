"""The log has a line for each tenth of each model, and no more."""

from __future__ import annotations

import asyncio

import pytest

from agent.core.progress import FileProgress
from agent.core.states import State
from agent.reports.step_log import MOST_JOBS, StepLog
from agent.state.feed import Feed
from agent.state.job import Job
from tests.fakes import error, logged, settle, target


class Download:
    """A job that downloads one file of so many bytes, and the log that listens."""

    def __init__(self, total: int = 1000) -> None:
        self.feed = Feed()
        self.log = StepLog(self.feed)
        self.job = Job(target(), self.feed)
        self.job.resolve()
        self.file = FileProgress("m.gguf", total)
        self.job.progress.begin([self.file], total)
        self.job.download()

    def at(self, done: int, now: float = 0.0) -> list[str]:
        """What is logged when so many bytes are there."""
        self.job.moved(self.file, done, State.DOWNLOADING, now)
        return self.look()

    def look(self) -> list[str]:
        with logged() as lines:
            self.log.look()
        return lines


@pytest.fixture
def download() -> Download:
    return Download()


def test_each_tenth_is_a_line_and_what_is_between_is_none(download: Download) -> None:
    assert download.look() == []
    assert download.at(99) == []
    assert download.at(100) == ["INFO qwen3 10%: 100 B of 1.0 kB"]
    assert download.at(199) == []
    assert download.at(450) == ["INFO qwen3 40%: 450 B of 1.0 kB"]
    assert download.at(450) == []


def test_what_is_lost_and_comes_again_is_not_logged_again(download: Download) -> None:
    download.at(500)
    assert download.at(250) == []
    assert download.at(510) == []
    assert download.at(600) == ["INFO qwen3 60%: 600 B of 1.0 kB"]


def test_rate_and_time_left_are_there_once_they_are_known(download: Download) -> None:
    download.at(10, 1.0)
    assert download.at(210, 3.0) == ["INFO qwen3 20%: 210 B of 1.0 kB, 100 B/s, 7 s left"]


def test_states_without_a_tenth_and_ends_are_not_its_business(download: Download) -> None:
    download.at(100)
    download.job.verify()
    assert download.look() == []
    download.job.moved(download.file, 1000, State.READY, 0.0)
    assert len(download.look()) == 1
    download.job.fail(error())
    assert download.look() == []


def test_a_job_that_waits_says_nothing_and_a_new_attempt_counts_anew(download: Download) -> None:
    download.at(500)
    download.job.fail(error())
    download.job.again()
    download.look()
    download.job.resolve()
    download.job.progress.begin([download.file], 1000)
    download.file.bytes_done = 0
    download.job.download()
    assert download.look() == []
    assert download.at(300) == ["INFO qwen3 30%: 300 B of 1.0 kB"]


def test_a_job_that_is_gone_is_forgotten(download: Download) -> None:
    download.at(500)
    download.feed.gone(download.job)
    assert download.look() == []
    assert download.at(600) == ["INFO qwen3 60%: 600 B of 1.0 kB"]
    download.feed.gone(download.job)
    download.look()
    download.feed.changed(download.job)
    assert download.look() == ["INFO qwen3 60%: 600 B of 1.0 kB"]  # as any job that it does not know


def test_tickets_and_too_many_jobs_do_no_harm(download: Download) -> None:
    for number in range(MOST_JOBS + 1):
        download.feed.changed(number)
    assert download.look() == []
    assert download.at(100) == ["INFO qwen3 10%: 100 B of 1.0 kB"]


async def test_it_serves_until_it_is_cancelled() -> None:
    download = Download()
    serving = asyncio.create_task(download.log.serve())
    with logged() as lines:
        for done in (100, 200):
            download.job.moved(download.file, done, State.DOWNLOADING, 0.0)
            await settle()
    assert [line.split(":")[0] for line in lines] == ["INFO qwen3 10%", "INFO qwen3 20%"]
    serving.cancel()
