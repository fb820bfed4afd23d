"""Each fault switch does what it says, for the paths it names, as often as it says, and nothing else."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from agent.embedded_hub.repo import HubFile, Repo
from tests.hub.faults import FaultBoard, Faults
from tests.hub.process import HubProcess
from tests.hub.server import InstrumentedHub

DATA = bytes(range(256)) * 4000
REPO, NAME = "wantd/faulty", "m.gguf"


@pytest.fixture(params=["memory", "disk"])
async def url(
    request: pytest.FixtureRequest, hub: InstrumentedHub, http: aiohttp.ClientSession, tmp_path: object
) -> str:
    path = f"{tmp_path}/{NAME}"
    with open(path, "wb") as file:
        file.write(DATA)
    hub.repos.add(Repo.of(REPO, {NAME: HubFile(DATA) if request.param == "memory" else HubFile(path=path)}))
    async with http.get(f"{hub.endpoint}/{REPO}/resolve/main/{NAME}", allow_redirects=False) as answer:
        return answer.headers["Location"]


async def read_some(answer: aiohttp.ClientResponse, count: int) -> bytes:
    return await answer.content.readexactly(count)


async def test_without_faults_the_bytes_are_right(hub: InstrumentedHub, http: aiohttp.ClientSession, url: str) -> None:
    async with http.get(url) as answer:
        assert await answer.read() == DATA
    assert hub.ledger.bytes_sent[REPO, NAME] == len(DATA)


async def test_a_cut_connection_has_sent_exactly_so_many_bytes(
    hub: InstrumentedHub, http: aiohttp.ClientSession, url: str
) -> None:
    hub.faults.set("cdn/*", Faults(cut_after=1000, times=1))
    async with http.get(url) as answer:
        assert answer.content_length == len(DATA)
        assert await read_some(answer, 1000) == DATA[:1000]
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.readany()
    assert hub.ledger.bytes_sent[REPO, NAME] == 1000
    async with http.get(url) as answer:  # the rule was for one request
        assert await answer.read() == DATA


async def test_a_stalled_connection_stays_open_and_silent_until_the_client_goes(
    hub: InstrumentedHub, http: aiohttp.ClientSession, url: str
) -> None:
    hub.faults.set("cdn/*", Faults(stall_after=1000))
    async with http.get(url) as answer:
        assert await read_some(answer, 1000) == DATA[:1000]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(answer.content.readany(), 0.1)
        assert hub.ledger.open_bodies == 1
    async with asyncio.timeout(10):
        while hub.ledger.open_bodies:
            await asyncio.sleep(0.005)


async def test_a_flipped_byte_is_flipped_in_every_range_that_holds_it(
    hub: InstrumentedHub, http: aiohttp.ClientSession, url: str
) -> None:
    hub.faults.set("cdn/*", Faults(flip_at=5))
    wrong = DATA[:5] + bytes([DATA[5] ^ 0xFF]) + DATA[6:]
    async with http.get(url) as answer:
        assert await answer.read() == wrong
    async with http.get(url, headers={"Range": "bytes=4-9"}) as answer:
        assert await answer.read() == wrong[4:10]
    async with http.get(url, headers={"Range": "bytes=6-9"}) as answer:
        assert await answer.read() == DATA[6:10]


async def test_a_short_answer_is_well_formed(hub: InstrumentedHub, http: aiohttp.ClientSession, url: str) -> None:
    hub.faults.set("cdn/*", Faults(short_by=10))
    async with http.get(url, headers={"Range": "bytes=0-99"}) as answer:
        assert answer.headers["Content-Range"] == f"bytes 0-99/{len(DATA)}"
        assert await answer.read() == DATA[:90]


async def test_refused_ranges_give_the_whole_file(hub: InstrumentedHub, http: aiohttp.ClientSession, url: str) -> None:
    hub.faults.set("cdn/*", Faults(ignore_ranges=True))
    async with http.get(url, headers={"Range": "bytes=100-"}) as answer:
        assert answer.status == 200
        assert await answer.read() == DATA


async def test_an_endless_body_has_no_length_and_goes_on(
    hub: InstrumentedHub, http: aiohttp.ClientSession, url: str
) -> None:
    hub.faults.set("cdn/*", Faults(endless=True))
    async with http.get(url, headers={"Range": "bytes=0-99"}) as answer:
        assert answer.content_length is None
        assert (await read_some(answer, 1_000_000))[:100] == DATA[:100]


async def test_content_range_and_etag_can_lie(hub: InstrumentedHub, http: aiohttp.ClientSession, url: str) -> None:
    hub.faults.set("cdn/*", Faults(content_range="bytes 7-8/9", etag="other"))
    async with http.get(url, headers={"Range": "bytes=0-99"}) as answer:
        assert answer.headers["Content-Range"] == "bytes 7-8/9"
        assert answer.headers["ETag"] == '"other"'
        assert await answer.read() == DATA[:100]
    hub.faults.set("hub/*/resolve/*", Faults(etag="0" * 64))
    async with http.head(f"{hub.endpoint}/{REPO}/resolve/main/{NAME}", allow_redirects=False) as answer:
        assert answer.headers["X-Linked-Etag"] == f'"{"0" * 64}"'


async def test_a_capped_answer_comes_in_small_pieces(
    hub: InstrumentedHub, http: aiohttp.ClientSession, url: str
) -> None:
    hub.faults.set("cdn/*", Faults(max_rate=2000))  # the whole would take eight minutes
    async with http.get(url) as answer:
        assert await read_some(answer, 100) == DATA[:100]
        assert hub.ledger.bytes_sent[REPO, NAME] < len(DATA) // 2


async def test_latency_comes_before_the_status(hub: InstrumentedHub, http: aiohttp.ClientSession, url: str) -> None:
    hub.faults.set("cdn/*", Faults(latency_s=600))
    with pytest.raises(TimeoutError):
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=2)):
            pass
    assert hub.ledger.recent[-1].status is None


async def test_a_status_is_given_so_many_times(hub: InstrumentedHub, http: aiohttp.ClientSession, url: str) -> None:
    hub.faults.set("hub/api/models/*", Faults(status=503, times=2, retry_after="7"))
    statuses = []
    for _ in range(3):
        async with http.get(f"{hub.endpoint}/api/models/{REPO}") as answer:
            statuses.append((answer.status, answer.headers.get("Retry-After")))
    assert statuses == [(503, "7"), (503, "7"), (200, None)]


def test_the_rule_set_last_wins_and_one_that_is_spent_gives_way() -> None:
    board = FaultBoard()
    board.set("*", Faults(status=500))
    board.set("cdn/*", Faults(status=503, times=1))
    assert [board.take("cdn/a").status, board.take("cdn/a").status, board.take("hub/a").status] == [503, 500, 500]
    board.clear("*")
    assert board.take("hub/a").status is None


def test_a_switch_that_does_not_exist_is_refused(hub_process: HubProcess) -> None:
    with pytest.raises(RuntimeError, match="unknown switches: stall"):
        hub_process.fault("*", stall=3)
    with pytest.raises(RuntimeError, match="no_such_option"):
        hub_process.configure(no_such_option=1)
