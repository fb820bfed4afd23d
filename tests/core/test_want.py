"""Whatever bytes lie in a want, they are a request or one clear error, and quickly so."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.core.want import MAX_BYTES, MAX_MODELS, Want, WantedModel, parse_want
from agent.errors import Code, WantdError


def parse(data: bytes | str | object, name: str = "x.want") -> Want:
    """Parse text, bytes, or anything else as JSON."""
    if isinstance(data, str):
        data = data.encode()
    return parse_want(name, data if isinstance(data, bytes) else json.dumps(data).encode())


def refused(data: bytes | str | object) -> str:
    """The message that a want is refused with."""
    with pytest.raises(WantdError) as caught:
        parse(data)
    assert caught.value.code is Code.WANT_INVALID
    assert caught.value.hint
    assert caught.value.message.isascii()
    return caught.value.message


def names(want: Want) -> list[str]:
    return [model.reference for model in want.models]


@pytest.mark.parametrize("data", [b"", b"\n", b"  \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_an_empty_want_names_its_model_by_its_own_name(data: bytes) -> None:
    assert names(parse(data, "qwen3.want")) == ["qwen3"]
    assert names(parse(data, "Qwen--Qwen3-0.6B.want")) == ["Qwen/Qwen3-0.6B"]
    assert names(parse(data, "Qwen--Qwen3:Q8_0@main.want")) == ["Qwen/Qwen3:Q8_0@main"]


def test_text_is_one_model_a_line_with_comments() -> None:
    want = parse("# what search needs\r\nqwen3   # the small one\r\n\r\n  org/name:Q8_0@main\r\n")
    assert names(want) == ["qwen3", "org/name:Q8_0@main"]
    assert (want.priority, want.not_before, want.labels) == (5, None, {})


def test_a_byte_order_mark_is_no_part_of_the_model() -> None:
    assert names(parse(b"\xef\xbb\xbfqwen3\r\n")) == ["qwen3"]
    assert names(parse(b'\xef\xbb\xbf{"model": "qwen3"}')) == ["qwen3"]


def test_an_object_may_say_everything_about_one_model() -> None:
    want = parse(
        {
            "model": "qwen3",
            "revision": "main",
            "files": ["*.gguf"],
            "exclude": ["*.bin"],
            "snapshot": "all",
            "priority": 0,
            "not_before": "2026-12-01T02:00:00Z",
            "labels": {"team": "search"},
        }
    )
    assert want.models == (WantedModel("qwen3", "main", ("*.gguf",), ("*.bin",), "all"),)
    assert want.priority == 0
    assert want.not_before == datetime(2026, 12, 1, 2, tzinfo=UTC)
    assert want.labels == {"team": "search"}


def test_only_the_model_is_required() -> None:
    assert parse({"model": "qwen3"}) == Want((WantedModel("qwen3"),))
    assert parse({"models": [{"model": "x", "snapshot": "all"}]}).models[0].snapshot == "all"


def test_a_manifest_is_many_models_in_one_want() -> None:
    want = parse({"models": ["qwen3", {"model": "org/name", "revision": "v1"}], "priority": 9, "labels": {"a": "b"}})
    assert want.models == (WantedModel("qwen3"), WantedModel("org/name", "v1"))
    assert (want.priority, want.labels) == (9, {"a": "b"})
    assert parse(["qwen3", {"model": "x", "files": ["a"]}]).models == (
        WantedModel("qwen3"),
        WantedModel("x", files=("a",)),
    )


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-12-01T02:00:00", datetime(2026, 12, 1, 2, tzinfo=UTC)),
        ("2026-12-01T02:00:00+09:00", datetime(2026, 11, 30, 17, tzinfo=UTC)),
        ("2026-12-01T02:00:00.5Z", datetime(2026, 12, 1, 2, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_times_are_utc_whatever_their_zone(text: str, utc: datetime) -> None:
    want = parse({"model": "x", "not_before": text})
    assert want.not_before == utc
    assert want.not_before is not None and want.not_before.tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["tomorrow", "2026-13-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", 1, None]
)
def test_what_is_no_time_in_utc_is_refused(text: object) -> None:
    if text is None:
        assert parse({"model": "x", "not_before": None}).not_before is None
    else:
        assert "not_before" in refused({"model": "x", "not_before": text})


@pytest.mark.parametrize(
    ("want", "key", "nearest"),
    [
        ({"model": "x", "priorty": 1}, "priorty", "priority"),
        ({"modle": "x"}, "modle", "model"),
        ({"model": "x", "snapshoot": "all"}, "snapshoot", "snapshot"),
        ({"models": ["x"], "label": {}}, "label", "labels"),
        ({"models": [{"model": "x", "exlude": []}]}, "exlude", "exclude"),
        ({"model": "x", "models": ["x"]}, "model", "models"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(want: object, key: str, nearest: str) -> None:
    message = refused(want)
    assert f"unknown key '{key}'" in message
    assert f"did you mean '{nearest}'" in message


def test_a_key_like_no_other_is_told_which_there_are() -> None:
    message = refused({"model": "x", "zzzzzz": 1})
    assert "'zzzzzz'" in message and "known are model, revision, files" in message


def test_several_problems_are_told_at_once() -> None:
    message = refused({"priority": 11, "labels": [], "fles": []})
    assert all(word in message for word in ("priority", "labels", "'files'", "'model' is required"))


@pytest.mark.parametrize(
    "want",
    [
        {},
        [],
        [[]],
        [1],
        [""],
        ["  "],
        [None],
        {"models": []},
        {"models": "x"},
        {"models": [["x"]]},
        {"model": ""},
        {"model": 1},
        {"model": None},
        {"model": ["x"]},
        {"model": "x" * 513},
        {"model": "x", "priority": -1},
        {"model": "x", "priority": 10},
        {"model": "x", "priority": 5.5},
        {"model": "x", "priority": "5"},
        {"model": "x", "priority": True},
        {"model": "x", "files": "*.gguf"},
        {"model": "x", "files": [""]},
        {"model": "x", "files": ["f"] * 201},
        {"model": "x", "snapshot": "every"},
        {"model": "x", "snapshot": True},
        {"models": [{"model": "x", "snapshot": 1}]},
        {"model": "x", "labels": {"a": 1}},
        {"model": "x", "labels": {"a": "b" * 501}},
        {"model": "x", "labels": {str(n): "" for n in range(51)}},
    ],
)
def test_values_of_the_wrong_kind_are_refused(want: object) -> None:
    refused(want)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"model": "x"',
        '{"model": "x"} trailing',
        "[NaN]",
        '{"model": "\\ud800"}',
        "{'model': 'x'}",
        '{"model": "x",}',
    ],
)
def test_what_begins_like_json_and_is_none_is_refused(text: str) -> None:
    assert "JSON" in refused(text)


def test_a_place_in_a_manifest_is_named() -> None:
    assert "models[2]" in refused(["a", "b", 3])
    assert "models[1]" in refused({"models": ["a", {"model": "b", "files": 1}]})


@pytest.mark.parametrize("data", [b"\xff", b"qwen3\xff", b"\xff\xfeq\0w\0e\0n\0", b"\xed\xa0\x80", b"a\xc3"])
def test_what_is_not_utf8_is_told_which_byte(data: bytes) -> None:
    assert "not UTF-8" in refused(data)


def test_only_comments_is_no_request() -> None:
    assert "only comments" in refused("# nothing\n  # here\n")


def test_the_largest_want_is_read_and_one_byte_more_is_not() -> None:
    assert names(parse(b"qwen3 #" + b"x" * (MAX_BYTES - 7))) == ["qwen3"]
    with pytest.raises(WantdError) as caught:
        parse(b" " * (MAX_BYTES + 1))
    assert caught.value.code is Code.WANT_TOO_LARGE
    assert str(MAX_BYTES + 1) in caught.value.message


def test_a_manifest_has_a_most_of_models() -> None:
    assert len(parse("a\n" * MAX_MODELS).models) == MAX_MODELS
    assert len(parse([{"model": "a"}] * MAX_MODELS).models) == MAX_MODELS
    assert str(MAX_MODELS) in refused("a\n" * (MAX_MODELS + 1))
    assert str(MAX_MODELS) in refused(["a"] * (MAX_MODELS + 1))


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "data",
    [
        b"[" * MAX_BYTES,
        b'{"a":' * (MAX_BYTES // 5),
        b"[" + b"[]," * 300_000 + b"[]]",
        orjson.dumps({f"k{n}": 1 for n in range(80_000)}),
        orjson.dumps({"k" * 1_000_000: 1}),
        orjson.dumps({"model": "x" * 1_000_000}),
        b'{"model": ' + b"9" * 1_000_000 + b"}",
        b'{"priority": 1e999999, "model": "x"}',
        orjson.dumps([{f"k{n}": 1} for n in range(9_000)]),
    ],
    ids=["brackets", "objects", "lists", "keys", "long key", "long model", "long number", "infinity", "bad items"],
)
def test_a_megabyte_made_to_hurt_is_refused_and_quickly(data: bytes) -> None:
    assert len(data) <= MAX_BYTES
    assert len(refused(data)) < 2000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["model", "models", "revision", "files", "exclude", "priority", "not_before", "labels", "priorit"]
            )
            | st.text(max_size=10),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode(errors="replace"))))
@example(b'{"model":"a","not_before":"9999-12-31T23:59:59-14:00"}')
@example(b"\x0b")
@example(b"{}")
def test_any_bytes_are_a_want_or_a_clear_error(data: bytes) -> None:
    try:
        want = parse(data)
    except WantdError as error:
        assert error.code is Code.WANT_INVALID
        return
    assert want.models and all(isinstance(model.reference, str) for model in want.models)


@settings(max_examples=200)
@given(JSON)
def test_any_json_is_a_want_or_a_clear_error(value: object) -> None:
    try:
        want = parse_want("x.want", json.dumps(value).encode())
    except WantdError as error:
        assert error.code is Code.WANT_INVALID
        return
    assert want.models and 0 <= want.priority <= 9


@given(st.datetimes(), st.integers(min_value=-24 * 60 + 1, max_value=24 * 60 - 1))
def test_any_time_is_taken_in_utc_or_refused(time: datetime, minutes: int) -> None:
    sign, minutes = ("-" if minutes < 0 else "+"), abs(minutes)
    text = f"{time.isoformat()}{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    try:
        want = parse({"model": "x", "not_before": text})
    except WantdError as error:
        assert error.code is Code.WANT_INVALID
    else:
        assert want.not_before is not None and want.not_before.tzinfo is UTC


def test_hashes_bind_and_urgency_is_said() -> None:
    want = parse(b'{"model": "m", "sha256": {"b": "' + b"AB" * 32 + b'", "a": "' + b"cd" * 32 + b'"}, "urgent": true}')
    assert want.models[0].sha256 == (("a", "cd" * 32), ("b", "ab" * 32))
    assert want.urgent
    with pytest.raises(WantdError):
        parse(b'{"model": "m", "sha256": {"a": "short"}}')
