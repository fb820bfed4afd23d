"""Why a want waits, as a sentence."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agent.core.waits import (
    AnyWait,
    ForDisk,
    ForLock,
    ForQuota,
    ForRateLimit,
    ForRetry,
    ForSlot,
    ForWindow,
    Holder,
    NotBefore,
    Wait,
)
from agent.reports.sentences import waiting_text
from tests.fakes import START, error

SOON = START + timedelta(seconds=90)
SENTENCES = [
    (ForLock(), "Waits for another process, which is downloading it."),
    (ForLock(Holder(7, "gpu-7", None, 0.42)), "Waits for process 7 on gpu-7, which is downloading it (42% done)."),
    (ForSlot(), "Waits for a free download slot: as many models are being downloaded as transfer.jobs allows."),
    (ForDisk(5_000_000, 1000), "Waits for disk space: 5.0 MB needed, 1.0 kB free."),
    (ForQuota(5_000_000, 0), "Waits for room in the store: 5.0 MB needed, 0 B left of store.max_bytes."),
    (ForRateLimit(SOON), "The server limits the rate of requests; continuing at 2026-11-24 12:01:30 UTC."),
    (NotBefore(SOON), "Starts at 2026-11-24 12:01:30 UTC, as the want asks."),
    (ForWindow(SOON), "Paused by a window of the configuration; continuing at 2026-11-24 12:01:30 UTC."),
    (ForWindow(None), "Paused by a window of the configuration, without an end."),
    (ForRetry(SOON, error()), "Tries again at 2026-11-24 12:01:30 UTC: it is hub_unreachable."),
]


@pytest.mark.parametrize(("wait", "sentence"), SENTENCES)
def test_a_sentence(wait: Wait, sentence: str) -> None:
    assert waiting_text(wait) == sentence


def test_every_wait_has_one() -> None:
    assert {type(wait) for wait, _ in SENTENCES} == set(AnyWait.__args__)
