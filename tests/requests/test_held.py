"""The larger wants of one user take so much memory and no more; those of others are not concerned."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from agent.core.limits import HELD_BYTES
from agent.core.want import Want, WantedModel
from agent.errors import Code
from agent.requests.held import SMALL_BYTES, Held
from agent.spool.files import Stamp

WANT = Want((WantedModel("qwen3"),))
LARGE = HELD_BYTES // 3


def stamp(size: int, owner: int = 1000) -> Stamp:
    return Stamp(struct.pack("<QQqqI", 1, size, 0, 0, owner))


def test_a_stamp_knows_size_and_owner(tmp_path: Path) -> None:
    (tmp_path / "a.want").write_text("qwen3")
    seen = Stamp.of((tmp_path / "a.want").stat())
    assert (seen.size, seen.owner) == (5, os.getuid())


def test_what_is_too_much_for_one_user_is_an_error_and_for_another_none() -> None:
    held = Held()
    assert held.take("a", stamp(LARGE), WANT) is None
    assert held.take("b", stamp(LARGE), WANT) is None
    refused = held.take("c", stamp(LARGE), WANT)
    assert refused is not None
    assert refused.code is Code.WANT_TOO_LARGE
    assert "user 1000" in refused.message
    assert held.take("d", stamp(LARGE, owner=1001), WANT) is None


def test_what_is_given_back_or_written_again_counts_once() -> None:
    held = Held()
    for _ in range(5):
        assert held.take("a", stamp(LARGE), WANT) is None
    assert held.take("b", stamp(LARGE), WANT) is None
    held.give_back("a")
    held.give_back("never there")
    assert held.take("c", stamp(LARGE), WANT) is None
    assert held.take("d", stamp(LARGE), WANT) is not None


def test_models_count_as_well_as_bytes_and_small_wants_do_not() -> None:
    held = Held()
    many = Want((WantedModel("m"),) * 10_000)
    taken = 0
    while held.take(f"w{taken}", stamp(20_000), many) is None:
        taken += 1
    assert 40 < taken < 100
    assert held.take("small", stamp(SMALL_BYTES), WANT) is None
