"""Whatever bytes a crash or a stranger left in a journal: it is read, never trusted, never raises."""

from __future__ import annotations

import hypothesis.strategies as st
import orjson
from hypothesis import example, given

from agent.core.ranges import granule_for
from agent.transfer.journal import Identity, parse_journal

SIZE = 5_000_000
GRANULE = granule_for(SIZE)
COUNT = -(-SIZE // GRANULE)
HEADER = {"version": 1, "size": SIZE, "granule": GRANULE, "sha256": "a" * 64}
NUMBER = st.integers(-(2**65), 2**65) | st.none() | st.floats() | st.text(max_size=3) | st.booleans()
LINE = st.binary(max_size=60) | st.lists(NUMBER, max_size=4).map(lambda entry: str(entry).encode())
CLAIMS = st.dictionaries(st.integers(0, COUNT - 1), st.integers(0, 2**32 - 1))


def journal(lines: list[bytes]) -> bytes:
    return b"\n".join([orjson.dumps(HEADER), *lines]) + b"\n"


@given(st.binary(max_size=500), st.integers(0, 2**40))
def test_any_bytes_are_read(data: bytes, part_size: int) -> None:
    parse_journal(data, part_size)


# Found by chance: a grid was laid out for the size that the header claims, and the system killed the agent for it.
@example({"size": 6635448459023360})
@given(st.dictionaries(st.sampled_from(["version", "size", "granule", "sha256", "etag", "x"]), NUMBER))
def test_any_header_is_read(header: dict[str, object]) -> None:
    text = str({**HEADER, **header}).replace("'", '"').replace("None", "null").replace("True", "true")
    parse_journal(text.encode(errors="replace") + b"\n[0,1]\n", SIZE)


@given(st.lists(LINE, max_size=20), st.integers(0, SIZE))
def test_no_claim_reaches_past_the_file(lines: list[bytes], part_size: int) -> None:
    found = parse_journal(journal(lines), part_size)
    assert found is not None
    for index, crc in found[1].items():
        assert 0 <= index < COUNT and 0 <= crc < 2**32
        assert min((index + 1) * GRANULE, SIZE) <= part_size


@given(CLAIMS)
def test_what_was_claimed_is_found(claims: dict[int, int]) -> None:
    found = parse_journal(journal([b"[%d,%d]" % claim for claim in claims.items()]), SIZE)
    assert found is not None and found[1] == claims


@given(CLAIMS, st.data())
def test_a_journal_cut_off_anywhere_claims_nothing_that_the_whole_one_did_not(
    claims: dict[int, int], data: st.DataObject
) -> None:
    whole = journal([b"[%d,%d]" % claim for claim in claims.items()])
    cut = data.draw(st.integers(0, len(whole)))
    found = parse_journal(whole[:cut], SIZE)
    assert found is None or found[1].items() <= claims.items()


def test_a_claim_that_was_taken_back_is_gone() -> None:
    found = parse_journal(journal([b"[3,7]", b"[4,7]", b"[3,null]"]), SIZE)
    assert found is not None and found[1] == {4: 7}


def test_only_the_same_file_is_continued() -> None:
    file = Identity(SIZE, GRANULE, sha256="a")
    assert file.continues(Identity(SIZE, GRANULE, sha256="a", etag="x", source="y"))
    assert not file.continues(Identity(SIZE, GRANULE, sha256="b"))
    assert not file.continues(Identity(SIZE + 1, GRANULE, sha256="a"))
    assert not Identity(SIZE, GRANULE).continues(Identity(SIZE, GRANULE))
    assert Identity(SIZE, GRANULE, etag="x").continues(Identity(SIZE, GRANULE, etag="x"))
    assert not Identity(SIZE, GRANULE, etag="x").continues(Identity(SIZE, GRANULE, etag="x", sha256="a"))
