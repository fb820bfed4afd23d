"""Servers that lie, stall, refuse and never end: each is cut off with an error that says what happened."""

from __future__ import annotations

import asyncio

import pytest

from agent.errors import Code, WantdError
from tests.transfer.helpers import MIB, Bench, Make, content, sha256
from tests.transfer.server import Asked, Manner

LARGE = 6 * MIB


async def refused(one: Bench, **fields: object) -> WantdError:
    with pytest.raises(WantdError) as caught:
        await asyncio.wait_for(one.fetch(**fields), 30)
    return caught.value


@pytest.mark.parametrize(
    ("manner", "what"),
    [
        (Manner(headers={"Content-Range": f"bytes 1-{MIB}/{LARGE}"}), ", asked for "),
        (Manner(headers={"Content-Range": f"bytes 0-{MIB}/{LARGE + 1}"}), f"{LARGE + 1} bytes there"),
        (Manner(headers={"Content-Range": "bytes 0-5/*"}), "Content-Range"),
        (Manner(headers={"Content-Range": None}), "Content-Range"),
        (Manner(headers={"Content-Length": str(LARGE * 2)}), "Content-Length"),
        (Manner(headers={"Content-Length": "-1"}), "Content-Length"),
        (Manner(headers={"Content-Encoding": "gzip"}), "compressed"),
        (Manner(headers={"Content-Type": "multipart/byteranges; boundary=x"}), "several parts"),
        (Manner(headers={"Transfer-Encoding": "chunked"}), "Transfer-Encoding"),
        (Manner(ignore_range=True, body=b"<html>log in</html>", headers={"Content-Type": "text/html"}), "HTML"),
        (Manner(status=416, body=b""), "answered 416"),
        (Manner(status=204), "answered 204"),
        (Manner(raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "first line"),
        (Manner(raw=b"HTTP/1.1 206 X\r\nbad header\r\n\r\n"), "header line"),
        (Manner(raw=b"HTTP/1.1 206 X\r\n" + b"a: b\r\n" * 20_000), "head is longer"),
        (Manner(raw=b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 9000), "too long"),
        (Manner(raw=b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n"), "no size"),
        (Manner(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 50), "interim"),
    ],
)
async def test_an_answer_that_is_not_what_was_asked_for_is_refused(bench: Make, manner: Manner, what: str) -> None:
    one = bench(content(LARGE))
    one.server.manner = lambda _: manner
    error = await refused(one)
    assert error.code is Code.HUB_PROTOCOL and not error.retryable
    assert what in error.message
    assert len(one.located) == 3  # other sources were asked for before it was final


@pytest.mark.parametrize("size", [50_000, LARGE])
async def test_wrong_bytes_are_fetched_once_more_and_then_told_with_both_hashes(bench: Make, size: int) -> None:
    one = bench(content(size))
    wrong = content(size, seed=9)
    one.server.files["/other"] = wrong
    one.location = lambda _: one.place("/other")
    error = await refused(one)
    assert error.code is Code.CHECKSUM_MISMATCH
    assert sha256(wrong) in error.message and sha256(one.server.files["/file"]) in error.message
    assert one.server.sent == 2 * size


@pytest.mark.parametrize("size", [50_000, LARGE])
async def test_bytes_that_were_wrong_once_are_mended_by_fetching_again(bench: Make, size: int) -> None:
    one = bench(content(size))
    one.server.files["/other"] = content(size, seed=9)
    one.location = lambda n: one.place("/other" if n == 0 else "/file")
    assert (await one.fetch()).verified
    assert one.holds()


async def test_a_body_longer_than_the_file_is_cut_off(bench: Make) -> None:
    one = bench(content(50_000))
    one.server.manner = lambda _: Manner(chunked=True, body=content(60_000))
    assert (await refused(one)).code is Code.HUB_PROTOCOL


async def test_a_body_without_end_is_cut_off_at_the_size_of_the_file(bench: Make) -> None:
    one = bench(content(LARGE))
    one.location = lambda _: one.place(ranges=False)
    one.server.manner = lambda _: Manner(endless=True, ignore_range=True)
    error = await refused(one)
    assert error.code is Code.CHECKSUM_MISMATCH
    assert one.part.stat().st_size <= LARGE


async def test_silence_ends_as_stalled_and_keeps_what_came(bench: Make) -> None:
    one = bench(content(LARGE), stall_timeout_s=0.4)
    one.server.manner = lambda asked: Manner(stall_after=0 if asked.number > 3 else None)
    error = await refused(one)
    assert error.code is Code.STALLED and error.retryable
    sent = one.server.sent
    one.server.manner = lambda _: Manner()
    await one.fetch()
    assert one.holds() and one.server.sent <= LARGE * 1.05 and sent > 0


async def test_a_byte_now_and_then_ends_as_stalled(bench: Make) -> None:
    one = bench(content(LARGE), stall_timeout_s=0.4)
    one.server.manner = lambda _: Manner(rate=50)
    assert (await refused(one)).code is Code.STALLED


async def test_a_head_that_trickles_in_ends_as_stalled(bench: Make) -> None:
    one = bench(content(LARGE), stall_timeout_s=0.4)
    one.server.manner = lambda _: Manner(head_rate=20)
    assert (await refused(one)).code is Code.STALLED


async def test_a_stalled_connection_is_replaced_while_the_others_go_on(bench: Make) -> None:
    one = bench(content(24 * MIB), stall_timeout_s=0.5)
    one.server.manner = lambda asked: Manner(stall_after=300_000 if asked.number == 1 else None)
    await asyncio.wait_for(one.fetch(), 30)
    assert one.holds() and one.located == [None]


async def test_a_lane_far_slower_than_its_peers_is_replaced(bench: Make) -> None:
    one = bench(content(48 * MIB))
    one.server.manner = lambda asked: Manner(rate=2_000 if asked.number == 1 else 3 * MIB)
    await asyncio.wait_for(one.fetch(), 30)  # at 2 kB/s its first granule alone would take two minutes
    assert one.holds() and one.located == [None]


@pytest.mark.parametrize("status", [500, 502, 503, 408])
async def test_faults_that_pass_are_waited_out(bench: Make, status: int) -> None:
    one = bench(content(LARGE))
    one.server.manner = lambda asked: Manner(status=status, body=b"") if asked.number < 6 else Manner()
    await one.fetch()
    assert one.holds()


async def test_a_server_that_never_answers_right_ends_with_a_retryable_error(bench: Make) -> None:
    one = bench(content(LARGE))
    one.server.manner = lambda _: Manner(status=502, body=b"")
    error = await refused(one)
    assert error.code is Code.HUB_UNREACHABLE and error.retryable and "502" in error.message
    assert len(one.located) > 1 and len(one.server.asked) < 60


async def test_nobody_listening_is_hub_unreachable(bench: Make) -> None:
    one = bench(content(LARGE))
    one.server.close()
    error = await refused(one)
    assert error.code is Code.HUB_UNREACHABLE and "refused" in error.message


async def test_a_short_rate_limit_is_waited_for_and_shared_by_all_connections(bench: Make) -> None:
    one = bench(content(LARGE))

    def limited(asked: Asked) -> Manner:
        return Manner(status=429, body=b"", headers={"Retry-After": "1"}) if asked.number == 0 else Manner()

    one.server.manner = limited
    await one.fetch()
    assert one.holds()
    refused_at = one.server.asked[0].at
    early = [asked for asked in one.server.asked[1:] if asked.at < refused_at + 0.9]
    assert len(early) <= 3  # those that were on their way


async def test_a_long_rate_limit_is_told_with_its_time(bench: Make) -> None:
    one = bench(content(LARGE))
    one.server.manner = lambda _: Manner(status=429, body=b"", headers={"RateLimit": '"resolvers";r=0;t=200'})
    error = await refused(one)
    assert error.code is Code.RATE_LIMITED and error.retry_after_s is not None
    assert 190 < error.retry_after_s <= 201
    assert len(one.server.asked) <= 4  # those that were on their way


async def test_another_etag_in_mid_download_never_mixes_old_bytes_with_new(bench: Make) -> None:
    old, new = content(24 * MIB), content(24 * MIB, seed=2)
    one = bench(new)
    one.server.files["/old"] = old

    def changing(asked: Asked) -> Manner:
        if asked.number >= 5:
            return Manner(headers={"ETag": '"new"'})
        start, end = asked.range or (0, len(old))
        return Manner(body=old[start:end], headers={"ETag": '"old"'})

    one.server.manner = changing
    await one.fetch(sha256=None)
    assert one.holds()


async def test_another_size_in_mid_download_starts_anew_where_only_the_server_knew_it(bench: Make) -> None:
    one = bench(content(24 * MIB))
    one.server.files["/old"] = content(20 * MIB, seed=2)
    one.location = lambda n: one.place("/old" if n == 0 else "/file")

    def gone(asked: Asked) -> Manner:
        wrong = f"bytes {asked.range[0]}-{asked.range[1] - 1}/{24 * MIB}" if asked.range else None
        late = asked.path == "/old" and asked.number >= 5
        return Manner(headers={"Content-Range": wrong}) if late and wrong else Manner()

    one.server.manner = gone
    await one.fetch(size=None, sha256=None)
    assert one.holds()


async def test_a_size_that_no_file_has_is_refused_before_anything_is_laid_out_for_it(bench: Make) -> None:
    one = bench(content(2 * MIB))
    one.server.manner = lambda _: Manner(ignore_range=True, headers={"Content-Length": str(10**17)})
    with pytest.raises(WantdError) as caught:
        await one.fetch(size=None)
    assert caught.value.code is Code.HUB_PROTOCOL and str(10**17) in caught.value.message


async def test_a_source_with_another_size_is_no_place(bench: Make) -> None:
    one = bench(content(LARGE))
    one.location = lambda _: one.place(size=LARGE - 1)
    error = await refused(one)
    assert error.code is Code.HUB_PROTOCOL and one.server.asked == []


async def test_addresses_that_the_rule_forbids_are_never_connected_to(bench: Make) -> None:
    one = bench(content(LARGE), private_ok=False)  # as for an endpoint on the public network
    error = await refused(one)
    assert error.code is Code.HUB_PROTOCOL and one.server.asked == []


async def test_no_error_shows_the_signature_of_a_url(bench: Make) -> None:
    one = bench(content(LARGE))
    one.location = lambda _: one.place("/file?X-Amz-Signature=geheim", headers={"Authorization": "Bearer geheim"})
    for manner in (Manner(status=500), Manner(status=403), Manner(status=416), Manner(cut_after=0)):
        one.server.manner = lambda _, manner=manner: manner  # type: ignore[misc]
        error = await refused(one)
        assert "geheim" not in f"{error!r} {error.message} {error.hint}"
