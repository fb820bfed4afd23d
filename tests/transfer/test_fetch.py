"""What a fetch does when servers behave, or nearly so."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from agent.config import Transfer as TransferConfig
from agent.core.remote import FetchRequest
from agent.errors import Code, WantdError
from tests.transfer.helpers import MIB, Make, content, git_sha1, sha256
from tests.transfer.server import Asked, Manner


@pytest.mark.parametrize("size", [0, 1, 50_000, MIB, MIB + 1, 5 * MIB + 3, 24 * MIB])
async def test_a_file_of_any_size_arrives_whole_and_verified(bench: Make, size: int) -> None:
    data = content(size)
    one = bench(data)
    fetched = await one.fetch()
    assert (fetched.size, fetched.sha256, fetched.verified, fetched.source) == (size, sha256(data), True, "hub")
    assert one.holds()
    assert one.told[-1] == (size, True)
    assert not one.journal.exists()
    assert {path.name for path in one.directory.iterdir()} == {"file.part"}


async def test_large_files_come_over_several_connections_small_ones_over_one(bench: Make) -> None:
    one = bench(content(24 * MIB))
    one.server.manner = lambda _: Manner(rate=4 * MIB)
    await one.fetch()
    assert one.server.most_open >= 4
    small = bench(content(50_000))
    await small.fetch()
    assert [asked.range for asked in small.server.asked] == [None]


@pytest.mark.parametrize("size", [50_000, 3 * MIB])
async def test_git_files_are_verified_by_their_blob_id_and_told_with_sha256(bench: Make, size: int) -> None:
    data = content(size)
    one = bench(data)
    fetched = await one.fetch(sha256=None, git_sha1=git_sha1(data))
    assert fetched.verified and fetched.sha256 == sha256(data)


async def test_without_any_hash_the_file_is_not_called_verified(bench: Make) -> None:
    one = bench(content(3 * MIB))
    assert not (await one.fetch(sha256=None)).verified
    assert one.holds()


@pytest.mark.parametrize("size", [50_000, 3 * MIB])
async def test_a_complete_partial_is_verified_without_any_request(bench: Make, size: int) -> None:
    one = bench(content(size))
    one.part.write_bytes(one.server.files["/file"])
    assert (await one.fetch()).verified
    assert one.located == [] and one.server.asked == []


@pytest.mark.parametrize("size", [50_000, 3 * MIB])
async def test_a_partial_of_the_right_length_with_other_bytes_is_fetched_anew(bench: Make, size: int) -> None:
    one = bench(content(size))
    one.part.write_bytes(content(size, seed=2))
    await one.fetch()
    assert one.holds() and one.located == [None]


@pytest.mark.parametrize("manner", [Manner(), Manner(chunked=True), Manner(until_close=True)])
@pytest.mark.parametrize("size", [None, 3 * MIB])
async def test_a_server_without_ranges_or_length_still_brings_the_file(
    bench: Make, manner: Manner, size: int | None
) -> None:
    one = bench(content(3 * MIB))
    plain = Manner(**{**vars(manner), "ignore_range": True, "headers": {"Accept-Ranges": None}})
    one.server.manner = lambda _: plain
    one.location = lambda _: one.place(ranges=False)
    assert (await one.fetch(size=size)).verified
    assert one.holds() and one.server.most_open == 1


async def test_an_unknown_size_is_learned_and_then_many_connections_help(bench: Make) -> None:
    one = bench(content(12 * MIB))
    assert (await one.fetch(size=None)).size == 12 * MIB
    assert one.holds() and any(asked.range for asked in one.server.asked)


async def test_a_200_to_a_range_is_taken_from_byte_0_and_never_appended(bench: Make) -> None:
    one = bench(content(12 * MIB))
    one.server.manner = lambda _: Manner(ignore_range=True)
    await one.fetch()
    assert one.holds()
    assert one.server.asked[-1].range is None


async def test_expired_urls_lose_nothing(bench: Make) -> None:
    one = bench(content(24 * MIB))
    one.location = lambda n: one.place(f"/file?signature={n}")

    def expiring(asked: Asked) -> Manner:
        return Manner(status=403, body=b"expired") if "=0" in asked.path and asked.number >= 3 else Manner()

    one.server.manner = expiring
    await one.fetch()
    assert one.holds() and len(one.located) == 2
    assert one.server.sent < 24 * MIB * 1.05
    assert one.located[1] is not None and "signature" not in str(one.located[1])


@pytest.mark.parametrize("status", [301, 302, 401, 404, 410])
async def test_a_location_that_no_longer_answers_with_bytes_is_asked_for_again(bench: Make, status: int) -> None:
    one = bench(content(3 * MIB))
    one.server.manner = lambda asked: Manner(status=status, body=b"") if asked.number == 0 else Manner()
    await one.fetch()
    assert one.holds() and len(one.located) >= 2


async def test_connections_that_break_in_the_middle_cost_only_what_they_had_not_brought(bench: Make) -> None:
    one = bench(content(24 * MIB))
    one.server.manner = lambda asked: Manner(cut_after=700_000) if asked.number % 3 == 1 else Manner()
    await one.fetch()
    assert one.holds() and one.server.sent < 24 * MIB * 1.05


async def test_tls_is_checked_against_the_file_that_ssl_cert_file_names(
    bench: Make, certificate: tuple[str, str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    trusting = bench(content(12 * MIB), tls=context, environ={"SSL_CERT_FILE": certificate[0]})
    await trusting.fetch()
    assert trusting.holds()
    trusting.part.unlink()
    with pytest.raises(WantdError, match="certificate is not trusted") as caught:
        await bench(content(3 * MIB), tls=context).fetch()
    assert caught.value.code is Code.HUB_UNREACHABLE and caught.value.retryable


async def test_many_files_at_once_share_the_connections(bench: Make, tmp_path: Path) -> None:
    one = bench(b"", connections=6)
    files = {f"/{n}": content(3 * MIB if n % 10 == 0 else 20_000, seed=n) for n in range(60)}
    one.server.files |= files

    async def download(path: str, data: bytes) -> None:
        name = str(tmp_path / f"many{path[1:]}")
        request = FetchRequest(path, f"{name}.part", f"{name}.json", len(data), sha256(data), priority=len(path))

        async def locate(_: WantdError | None) -> object:
            return one.place(path)

        await one.engine.fetch(request, locate, lambda *_: None)  # type: ignore[arg-type]
        assert Path(f"{name}.part").read_bytes() == data

    await asyncio.gather(*(download(path, data) for path, data in files.items()))
    assert one.server.most_open <= 6


async def test_two_fetches_of_one_partial_do_not_harm_each_other(bench: Make) -> None:
    one = bench(content(12 * MIB))
    one.server.manner = lambda _: Manner(rate=16 * MIB)
    fetched = await asyncio.gather(one.fetch(), one.fetch())
    assert one.holds() and all(each.verified for each in fetched)
    assert one.server.sent < 12 * MIB * 1.05


async def test_the_cap_on_the_rate_holds_over_all_connections_and_can_be_lifted(bench: Make) -> None:
    one = bench(content(8 * MIB), max_rate=2 * MIB)
    loop = asyncio.get_running_loop()
    began = loop.time()
    fetch = asyncio.ensure_future(one.fetch())
    while not one.told or one.told[-1][0] < MIB:
        await asyncio.sleep(0.02)
    assert one.told[-1][0] <= 2 * MIB * (loop.time() - began) + MIB
    one.config = TransferConfig(max_rate=0)
    await asyncio.wait_for(fetch, 20)
    assert one.holds()


async def test_http_proxies_of_the_environment_are_used(bench: Make) -> None:
    one = bench(content(3 * MIB), environ={})
    proxy = bench(content(3 * MIB))
    proxy.server.files = {"http://models.example:8000/file": proxy.server.files["/file"]} | proxy.server.files
    through = bench(content(3 * MIB), environ={"http_proxy": proxy.server.url("").replace("http://", "http://u:p@")})
    through.location = lambda _: through.at("http://models.example:8000/file")
    await through.fetch()
    assert through.holds() and one.server.asked == []
    assert proxy.server.asked[0].headers["proxy-authorization"] == "Basic dTpw"
    assert proxy.server.asked[0].headers["host"] == "models.example:8000"
