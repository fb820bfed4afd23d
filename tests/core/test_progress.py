"""What a reader finds in a `.progress` file: every field of the contract, and nothing that runs backwards."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.progress import (
    AgentInfo,
    FileProgress,
    ModelProgress,
    WantInfo,
    render,
    show_model,
    want_fraction,
    want_state,
)
from agent.core.states import State
from agent.core.waits import ForDisk, ForSlot, NotBefore
from agent.core.words import timestamp
from agent.errors import Code, WantdError

NOW = datetime(2026, 11, 22, 7, 4, 11, 120_900, tzinfo=UTC)
AGENT = AgentInfo(4711, "gpu-7", "0.1.0")
SHA = "ab" * 32
ERROR = WantdError(Code.STALLED, "no byte for 30 s", "nothing to do", model="qwen3", file="m.gguf")


def want(**changed: Any) -> WantInfo:
    fields: dict[str, Any] = {
        "name": "qwen3.want",
        "attempt": 1,
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": None,
        "labels": {},
    }
    return WantInfo(**{**fields, **changed})


def shown(*models: ModelProgress, info: WantInfo | None = None, **more: Any) -> dict[str, Any]:
    data, _ = render(
        info or want(), [show_model(f"m{at}", model) for at, model in enumerate(models)], AGENT, NOW, **more
    )
    assert data.endswith(b"}\n")
    value: dict[str, Any] = json.loads(data)
    return value


def model(*states: State, **fields: Any) -> ModelProgress:
    """A model that went through these states, with any fields set."""
    made = ModelProgress(**fields)
    for state in states:
        made.go(state)
    return made


def downloading(done: int, total: int | None, **fields: Any) -> ModelProgress:
    made = model(State.RESOLVING, State.DOWNLOADING, **fields)
    file = FileProgress("m.gguf", total, SHA)
    made.begin([file], total)
    made.update(file, done, State.DOWNLOADING, 1.0)
    return made


def test_every_field_of_the_contract_is_there() -> None:
    moving = downloading(204, 484, repo="org/name", revision="main", commit="c" * 40, source="hub")
    moving.rate = 100.0
    value = shown(moving, info=want(labels={"team": "search"}))
    assert value == {
        "schema": 1,
        "want": "qwen3.want",
        "state": "downloading",
        "progress": 0.4215,
        "bytes_done": 204,
        "bytes_total": 484,
        "rate_bytes_per_s": 100,
        "eta_s": 2.8,
        "models": [
            {
                "model": "m0",
                "repo": "org/name",
                "revision": "main",
                "commit": "c" * 40,
                "state": "downloading",
                "source": "hub",
                "source_why": None,
                "verified": None,
                "path": None,
                "bytes_done": 204,
                "bytes_total": 484,
                "waiting": None,
                "error": None,
                "files": [
                    {
                        "name": "m.gguf",
                        "size": 484,
                        "bytes_done": 204,
                        "sha256": SHA,
                        "state": "downloading",
                        "source": None,
                    },
                ],
            }
        ],
        "waiting": None,
        "error": None,
        "attempt": 1,
        "labels": {"team": "search"},
        "created_at": "2026-11-22T07:04:11.120Z",
        "updated_at": "2026-11-22T07:04:11.120Z",
        "started_at": "2026-11-22T07:04:11.120Z",
        "finished_at": None,
        "agent": {"pid": 4711, "host": "gpu-7", "version": "0.1.0"},
    }


def test_ready_says_where_and_is_the_only_one_at_one() -> None:
    ready = model(State.READY, path="/store/qwen3/m.gguf", source="store")
    ready.show_published([("m.gguf", 484, SHA)], 484)
    value = shown(ready, info=want(finished_at=NOW))
    assert (value["state"], value["progress"], value["eta_s"]) == ("ready", 1.0, None)
    assert value["models"][0]["path"] == "/store/qwen3/m.gguf"
    assert value["models"][0]["files"][0]["state"] == "ready"
    assert (value["bytes_done"], value["bytes_total"], ready.files_done) == (484, 484, 1)
    assert value["finished_at"] == "2026-11-22T07:04:11.120Z"


def test_the_last_byte_is_not_the_end() -> None:
    assert shown(downloading(484, 484))["progress"] == 0.9999
    almost = [model(State.READY, bytes_total=10**12), downloading(7, 7)]
    assert shown(*almost)["progress"] < 1
    assert want_fraction([model(State.READY), model(State.READY)]) == 1.0


def test_a_want_that_was_just_seen_is_queued() -> None:
    value = shown()
    assert (value["state"], value["progress"], value["bytes_total"], value["models"]) == ("queued", 0.0, None, [])


def test_a_wait_is_told_as_long_as_it_lasts() -> None:
    made = model(State.RESOLVING)
    made.go(State.WAITING, waiting=ForDisk(7, 5))
    value = shown(made)
    assert value["state"] == "waiting"
    assert value["waiting"] == value["models"][0]["waiting"] == {"for": "disk", "need_bytes": 7, "free_bytes": 5}
    made.go(State.DOWNLOADING)
    value = shown(made)
    assert value["waiting"] is None and value["models"][0]["waiting"] is None


def test_a_want_may_wait_for_its_time_itself() -> None:
    value = shown(waiting=NotBefore(datetime(2026, 12, 1, 2, tzinfo=UTC)))
    expected = {"for": "not_before", "until": "2026-12-01T02:00:00.000Z"}
    assert (value["state"], value["waiting"]) == ("waiting", expected)


def test_a_wait_of_one_model_does_not_hide_that_another_moves() -> None:
    waiting = model(State.RESOLVING)
    waiting.go(State.WAITING, waiting=ForSlot())
    value = shown(waiting, downloading(1, 2))
    assert (value["state"], value["waiting"]) == ("downloading", None)
    assert value["models"][0]["waiting"] == {"for": "slot"}


def test_an_error_says_code_message_hint_and_where() -> None:
    failed = model(State.RESOLVING)
    failed.go(State.FAILED, error=ERROR)
    value = shown(failed)
    expected = {
        "code": "stalled",
        "message": "no byte for 30 s",
        "hint": "nothing to do",
        "retryable": True,
        "model": "qwen3",
        "file": "m.gguf",
    }
    assert (value["state"], value["error"], value["models"][0]["error"]) == ("failed", expected, expected)
    assert shown(ModelProgress.failed(ERROR)) == value
    unread = shown(error=WantdError(Code.WANT_INVALID, "bad", "mend it"))
    assert (unread["state"], unread["error"]["code"]) == ("failed", "want_invalid")


def test_one_models_error_is_told_while_others_go_on() -> None:
    failed = model(State.RESOLVING)
    failed.go(State.FAILED, error=ERROR)
    value = shown(failed, downloading(1, 2))
    assert value["state"] == "downloading" and value["error"]["code"] == "stalled"


def test_a_long_list_is_cut_to_what_moves() -> None:
    made = model(State.RESOLVING, State.DOWNLOADING)
    files = [FileProgress(f"f{n}", 10) for n in range(1000)]
    made.begin(files, 10_000)
    for file in files[:300]:
        made.update(file, 10, State.READY, 1.0)
    for file in files[300:303]:
        made.update(file, 5, State.DOWNLOADING, 1.0)
    made.update(files[303], 10, State.VERIFYING, 1.0)
    entry = shown(made)["models"][0]
    assert [file["name"] for file in entry["files"]] == ["f300", "f301", "f302", "f303"]
    assert (entry["files_total"], entry["files_done"]) == (1000, 300)
    assert entry["bytes_done"] == 3025
    for file in files[304:]:
        made.update(file, 1, State.DOWNLOADING, 1.0)
    assert len(shown(made)["models"][0]["files"]) == 200


@pytest.mark.parametrize(("count", "whole"), [(200, True), (201, False)])
def test_a_list_of_two_hundred_is_shown_whole(count: int, whole: bool) -> None:
    made = model(State.RESOLVING, State.DOWNLOADING)
    made.begin([FileProgress(f"f{n}", 1) for n in range(count)], count)
    entry = shown(made)["models"][0]
    assert len(entry["files"]) == (200 if whole else 0)
    assert ("files_total" in entry) is not whole


def test_unknown_sizes_show_no_total_and_no_eta() -> None:
    value = shown(downloading(5, None, rate=3.0))
    assert (value["bytes_done"], value["bytes_total"], value["eta_s"]) == (5, None, None)
    assert shown(downloading(5, None), downloading(5, 100))["bytes_total"] is None
    assert shown(downloading(0, 0), downloading(5, 100))["bytes_total"] == 100


def test_the_eta_is_what_is_left_at_the_rate_of_now_to_a_tenth_of_a_second() -> None:
    moving = downloading(1, 2)
    moving.rate = 3.0
    assert shown(moving)["eta_s"] == 0.3
    moving.rate = 0.5
    assert shown(moving)["eta_s"] == 2.0


def test_many_models_count_by_their_bytes_where_all_are_known() -> None:
    assert want_fraction([downloading(50, 100), downloading(0, 300)]) == 0.125
    assert want_fraction([downloading(50, 100), model()]) == 0.25
    assert want_fraction([downloading(0, 300), model(State.READY, bytes_total=100)]) == 0.25
    assert want_state([model(State.READY), model()], None) is State.QUEUED
    assert want_state([model(State.READY)], ERROR) is State.FAILED


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-50, 100)), max_size=40))
def test_progress_never_runs_backwards_within_an_attempt(steps: list[tuple[int, int]]) -> None:
    made = model(State.RESOLVING, State.DOWNLOADING)
    files = [FileProgress(f"f{n}", 100) for n in range(3)]
    made.begin(files, 300)
    least, now = 0.0, 1.0
    for which, step in steps:  # a negative step is bad ranges that were dropped
        now += 0.05
        file = files[which]
        made.update(file, min(max(file.bytes_done + step, 0), 100), State.DOWNLOADING, now)
        data, fraction = render(want(), [show_model("m", made)], AGENT, NOW, least=least)
        value = json.loads(data)
        assert least <= fraction <= 0.9999
        assert value["progress"] == round(fraction, 4)
        assert value["bytes_done"] == sum(file.bytes_done for file in files)
        assert value["rate_bytes_per_s"] >= 0
        assert value["eta_s"] is None or value["eta_s"] >= 0
        least = fraction


def rate_after(*marks: tuple[float, int]) -> float:
    """The rate, in bytes per second, once these bytes were there at these times."""
    made = model(State.RESOLVING, State.DOWNLOADING)
    file = FileProgress("f", 10_000)
    made.begin([file], 10_000)
    for now, done in marks:
        made.update(file, done, State.DOWNLOADING, now)
    return made.rate


@pytest.mark.parametrize(
    ("marks", "rate"),
    [
        ([(5.0, 700)], 0.0),  # what was there at the beginning did not come at any rate
        ([(0.0, 0), (0.5, 50)], 100.0),
        ([(0.0, 0), (2.0, 200), (4.0, 200)], 50.0),  # since the last mark that is three seconds old
        ([(0.0, 0), (1.0, 100), (5.0, 100)], 0.0),
        ([(float(second), min(second, 10) * 100) for second in range(13)], 100 / 3),
        ([(float(second), min(second, 10) * 100) for second in range(14)], 0.0),  # a stall shows after three seconds
        ([(float(second), second * second) for second in range(10)], 15.0),  # 81 - 36 in three seconds
        ([(0.0, 0), (1.0, 100), (2.0, 100)], 50.0),  # no byte came: that is not the same as bytes that were lost
    ],
)
def test_the_rate_is_of_the_last_three_seconds(marks: list[tuple[float, int]], rate: float) -> None:
    assert rate_after(*marks) == pytest.approx(rate)


def test_the_rate_is_reckoned_ten_times_a_second_at_most() -> None:
    assert rate_after((0.0, 0), (0.1, 10)) == 100.0
    assert rate_after((0.0, 0), (1.0, 100), (1.05, 9000)) == 100.0


def test_the_rate_begins_again_where_bytes_were_lost() -> None:
    assert rate_after((0.0, 0), (1.0, 100), (2.0, 50)) == 0.0
    assert rate_after((0.0, 0), (1.0, 100), (2.0, 50), (3.0, 60)) == 10.0


def test_the_rate_ends_with_the_download_and_begins_again_with_the_next() -> None:
    made = downloading(0, 1000)
    file = made.files[0]
    made.update(file, 100, State.DOWNLOADING, 2.0)
    assert made.rate == 100.0
    made.go(State.VERIFYING)
    assert made.rate == 0.0
    assert shown(made)["eta_s"] is None
    made.go(State.DOWNLOADING)
    made.update(file, 200, State.DOWNLOADING, 5.0)
    assert made.rate == 0.0
    made.update(file, 220, State.DOWNLOADING, 6.0)
    assert made.rate == 20.0


def test_a_new_plan_begins_with_what_its_files_say() -> None:
    made = downloading(70, 100)
    made.update(made.files[0], 100, State.READY, 2.0)
    files = [FileProgress("a", 10, state=State.READY), FileProgress("b", 500)]
    made.begin(files, 510)
    assert (made.bytes_done, made.bytes_total, made.files_done) == (0, 510, 1)
    made.update(files[1], 200, State.DOWNLOADING, 3.0)
    assert made.rate == 0.0
    made.update(files[1], 210, State.DOWNLOADING, 4.0)
    assert (made.bytes_done, made.rate) == (210, 10.0)


def test_each_tenth_is_a_step_and_the_last_one_is_the_end() -> None:
    assert [downloading(done, 100).step for done in (0, 9, 10, 99, 100)] == [0, 0, 1, 9, 9]
    assert model(State.READY).step == 10


def test_a_model_that_nothing_has_happened_to_is_at_nothing() -> None:
    made = ModelProgress()
    assert (made.state, made.bytes_done, made.rate, made.attempt) == (State.QUEUED, 0, 0.0, 1)
    assert shown(made)["rate_bytes_per_s"] == 0


def test_verification_is_told_from_downloading_by_the_files() -> None:
    made = model(State.RESOLVING, State.DOWNLOADING)
    one, two = FileProgress("a", 1), FileProgress("b", 1)
    made.begin([one, two], 2)
    made.update(one, 1, State.READY, 1.0)
    assert not made.only_verifying
    made.update(two, 1, State.VERIFYING, 1.0)
    assert made.only_verifying
    made.update(two, 1, State.READY, 1.0)
    assert (made.only_verifying, made.files_done) == (False, 2)


def test_a_file_whose_hash_was_wrong_is_no_longer_verified() -> None:
    made = model(State.RESOLVING, State.DOWNLOADING)
    one, two = FileProgress("a", 1), FileProgress("b", 1)
    made.begin([one, two], 2)
    for file in (one, two):
        made.update(file, 1, State.VERIFYING, 1.0)
    made.update(one, 0, State.DOWNLOADING, 2.0)
    assert not made.only_verifying
    made.update(one, 1, State.VERIFYING, 3.0)
    assert made.only_verifying
    made.update(one, 1, State.READY, 4.0)
    assert (made.only_verifying, made.files_done) == (True, 1)


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05.000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=timezone(timedelta(hours=9))), "2026-01-01T18:04:05.999Z"),
    ],
)
def test_times_are_utc_with_milliseconds(time: datetime, text: str) -> None:
    assert timestamp(time) == text


@pytest.mark.parametrize("name", ["caf\udce9.want", "\ud800.want", "a\nb.want", "日本語.want", '"\\.want'])
def test_any_file_name_can_be_answered(name: str) -> None:
    data, _ = render(want(name=name), [show_model(name, model())], AGENT, NOW)
    value = json.loads(data)
    assert value["want"] == value["models"][0]["model"] == name.encode(errors="replace").decode()
