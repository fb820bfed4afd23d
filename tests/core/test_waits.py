"""Every reason to wait reads in a progress file as the protocol has it, comes back as it was, and is said in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agent.core.waits import (
    AnyWait,
    ForDisk,
    ForLock,
    ForRateLimit,
    ForRetry,
    ForSlot,
    ForWindow,
    Holder,
    NotBefore,
    from_json,
    in_words,
    to_json,
)
from agent.errors import Code, WantdError

UNTIL = datetime(2026, 11, 22, 7, 4, 11, 120_000, tzinfo=UTC)
TEXT = "2026-11-22T07:04:11.120Z"
ERROR = WantdError(Code.STALLED, "no byte for 30 s", "nothing to do", model="qwen3", file="m.gguf")

CASES: list[tuple[AnyWait, dict[str, Any], str]] = [
    (
        ForLock(Holder(1, "a", TEXT, 0.5)),
        {"for": "lock", "holder": {"pid": 1, "host": "a", "since": TEXT, "progress": 0.5}},
        "process 1 on a, which is downloading it (50% done)",
    ),
    (
        ForLock(Holder(1, "a")),
        {"for": "lock", "holder": {"pid": 1, "host": "a", "since": None, "progress": None}},
        "process 1 on a, which is downloading it",
    ),
    (ForLock(None), {"for": "lock", "holder": None}, "another process, which is downloading it"),
    (ForSlot(), {"for": "slot"}, "a free download slot"),
    (ForRateLimit(UNTIL), {"for": "rate_limit", "until": TEXT}, f"the server's rate limit, until {TEXT}"),
    (NotBefore(UNTIL), {"for": "not_before", "until": TEXT}, f"its start time, {TEXT}"),
    (
        ForWindow(UNTIL),
        {"for": "window", "until": TEXT},
        f"the end of a window that pauses downloads; it ends at {TEXT}",
    ),
    (ForWindow(None), {"for": "window", "until": None}, "the end of a window that pauses downloads; it never ends"),
    (
        ForDisk(7_000_000, 5),
        {"for": "disk", "need_bytes": 7_000_000, "free_bytes": 5},
        "disk space: 7.0 MB needed, 5 B free",
    ),
    (
        ForRetry(UNTIL, ERROR),
        {"for": "retry", "until": TEXT, "because": ERROR.to_json()},
        f"the next try at {TEXT}: no byte for 30 s (stalled)",
    ),
]


@pytest.mark.parametrize(("wait", "value", "words"), CASES, ids=lambda case: str(case)[:20])
def test_each_wait_is_one_object_and_one_sentence(wait: AnyWait, value: dict[str, Any], words: str) -> None:
    assert to_json(wait) == value
    assert in_words(wait) == words
    back = from_json(value)
    assert type(back) is type(wait)
    assert back is not None
    assert to_json(back) == value
    assert in_words(back) == words


@pytest.mark.parametrize("value", [{}, {"for": "the_moon"}, {"for": "disk"}, {"for": "retry", "until": TEXT}])
def test_what_a_later_version_writes_is_no_error(value: dict[str, Any]) -> None:
    assert from_json(value) is None
    assert in_words(None) == "something that a newer version knows"
