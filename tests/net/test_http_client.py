"""Whatever a server does, a request ends soon, with an answer or with an error that a person can act on."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from agent.errors import Code, WantdError
from agent.net.address import AddressRule
from agent.net.budget import HostBudgets
from agent.net.client import IN_FLIGHT, USER_AGENT, Http, Limits

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
ServeRaw = Callable[[Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]], Awaitable[str]]

AUTH = "Bearer hf_secretsecret"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def failure(asking: Awaitable[object]) -> WantdError:
    with pytest.raises(WantdError) as caught:
        await asking
    shown = f"{caught.value} {caught.value.to_json()} {caught.value!r}"
    assert "secret" not in shown
    assert caught.value.hint
    return caught.value


async def test_an_answer_comes_with_status_headers_and_json(http: Http, serve: Serve) -> None:
    async def hub(request: web.Request) -> web.Response:
        assert request.headers["User-Agent"] == USER_AGENT
        assert request.headers["Accept-Encoding"] == "identity"
        assert "Cookie" not in request.headers
        return web.json_response({"a": [1]}, headers={"X-Repo-Commit": "c", "Set-Cookie": "a=b"})

    url = await serve(hub)
    await http.get(url)
    answer = await http.get(f"{url}/api?x=%2F")
    assert (answer.status, answer.headers["x-repo-commit"], answer.json()) == (200, "c", {"a": [1]})


async def test_a_url_goes_out_as_it_came(http: Http, serve: Serve) -> None:
    async def cdn(request: web.Request) -> web.Response:
        return web.json_response(request.raw_path)

    path = "/a%2Fb%20c/~d?X-Sig=%2B%2f+a&e=%22f%22&g"
    assert (await http.get(await serve(cdn) + path)).json() == path


async def test_the_token_stays_with_the_origin_when_a_redirect_leaves_it(http: Http, serve: Serve) -> None:
    seen: list[tuple[str, str | None]] = []

    async def cdn(request: web.Request) -> web.Response:
        seen.append(("cdn", request.headers.get("Authorization")))
        raise web.HTTPFound(f"{hub_url}/back")

    async def hub(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization")))
        if request.path == "/start":
            raise web.HTTPTemporaryRedirect("/renamed")
        if request.path == "/renamed":
            raise web.HTTPFound(f"{cdn_url}/x?Signature=s", headers={"X-Linked-Size": "7"})
        return web.json_response({})

    hub_url, cdn_url = await serve(hub), await serve(cdn)
    answer = await http.get(f"{hub_url}/start", AUTH)
    assert seen == [("/start", AUTH), ("/renamed", AUTH), ("cdn", None), ("/back", None)]
    assert [hop.headers.get("X-Linked-Size") for hop in answer.hops] == [None, "7", None]


async def test_head_stops_where_a_redirect_leaves_the_origin(http: Http, serve: Serve) -> None:
    async def hub(request: web.Request) -> web.Response:
        if request.path == "/start":
            raise web.HTTPTemporaryRedirect("/renamed")
        raise web.HTTPFound("http://cdn.invalid/x?Signature=s", headers={"X-Linked-Size": "7"})

    answer = await http.head(await serve(hub) + "/start", AUTH)
    assert answer.location == "http://cdn.invalid/x?Signature=s"
    assert answer.headers["X-Linked-Size"] == "7"
    assert "Signature" not in repr(answer)


async def test_a_probe_asks_for_one_byte_and_reads_none(http: Http, serve: Serve) -> None:
    async def cdn(request: web.Request) -> web.StreamResponse:
        assert request.headers["Range"] == "bytes=0-0"
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))

    answer = await http.probe(await serve(cdn))
    assert (answer.status, answer.body) == (200, b"")


async def test_redirects_in_a_circle_end(http: Http, serve: Serve) -> None:
    async def hub(request: web.Request) -> web.Response:
        raise web.HTTPFound("/again")

    assert (await failure(http.get(await serve(hub)))).code is Code.HUB_PROTOCOL


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    ],
)
async def test_broken_http_is_a_fault_of_the_server(http: Http, serve_raw: ServeRaw, head: bytes) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()

    error = await failure(http.get(await serve_raw(talk) + "?secret"))
    assert error.code is Code.HUB_PROTOCOL
    assert not error.retryable


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b""),  # silence
        (b"HTTP/1.1 200 OK\r\n", b"X"),  # a head without end
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "),  # a body byte by byte
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
async def test_a_server_that_dawdles_is_left(serve_raw: ServeRaw, first: bytes, drop: bytes) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.02)

    limits = Limits(connect_s=0.2, head_s=0.2, body_s=0.2)
    async with Http(AddressRule(True), HostBudgets(), limits=limits) as http:
        error = await failure(http.get(await serve_raw(talk) + "?secret"))
    assert (error.code, error.retryable) == (Code.HUB_UNREACHABLE, True)
    assert "no response in time" in error.message


async def test_a_connection_cut_in_the_middle_is_passing(http: Http, serve_raw: ServeRaw) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
        await writer.drain()

    error = await failure(http.get(await serve_raw(talk) + "?secret"))
    assert error.code is Code.HUB_UNREACHABLE
    assert "closed the connection" in error.message


async def test_more_than_the_cap_is_not_read(http: Http, serve: Serve) -> None:
    async def hub(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))

    error = await failure(http.get(await serve(hub)))
    assert error.code is Code.HUB_PROTOCOL
    assert "100000 bytes" in error.message


async def test_the_endless_body_of_an_error_is_cut_and_the_error_kept(http: Http, serve: Serve) -> None:
    async def hub(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=404)
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))

    assert (await http.get(await serve(hub))).status == 404


@pytest.mark.parametrize(
    ("coding", "body", "said"),
    [
        ("br", b"\x1f\x8b", "coding"),
        ("gzip", b"no gzip at all", "not the gzip"),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-6], "without its end"),
        ("gzip", gzip.compress(bytes(50_000_000), mtime=0), "more than 100000 bytes"),
    ],
)
async def test_a_compressed_answer_must_be_gzip_whole_and_within_the_limit(
    http: Http, serve: Serve, coding: str, body: bytes, said: str
) -> None:
    async def hub(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Encoding": coding})

    assert said in (await failure(http.get(await serve(hub)))).message


async def test_gzip_that_a_mirror_passes_on_is_unpacked(http: Http, serve: Serve) -> None:
    async def mirror(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b'{"a": 1}'), headers={"Content-Encoding": "gzip"})

    assert (await http.get(await serve(mirror))).json() == {"a": 1}


async def test_a_document_is_posted_as_json_and_a_redirect_is_not_followed(http: Http, serve: Serve) -> None:
    seen: list[object] = []

    async def balancer(request: web.Request) -> web.Response:
        seen.append((request.method, request.headers["Authorization"], await request.json()))
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    assert (await http.post(await serve(balancer), {"state": "idle"}, AUTH)).status == 307
    assert seen == [("POST", AUTH, {"state": "idle"})]


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"\n<html>", "HTML page"), (b"{", "JSON"), (b"", "JSON"), (b"\xef\xbb\xbf{}", "JSON"), (b"NaN", "JSON")],
)
async def test_an_answer_that_is_no_json_says_what_it_is(http: Http, serve: Serve, body: bytes, said: str) -> None:
    async def hub(_: web.Request) -> web.Response:
        return web.Response(body=body)

    answer = await http.get(await serve(hub))
    with pytest.raises(WantdError, match=said) as caught:
        answer.json()
    assert caught.value.code is Code.HUB_PROTOCOL


async def test_a_host_that_refuses_connections_is_passing_and_named(http: Http) -> None:
    error = await failure(http.get(f"http://127.0.0.1:{free_port()}/secret"))
    assert (error.code, error.retryable) == (Code.HUB_UNREACHABLE, True)
    assert "127.0.0.1" in error.message
    assert "refused" in error.message
    assert "HF_ENDPOINT" in error.hint


async def test_a_name_that_does_not_resolve_is_passing_and_named(http: Http) -> None:
    error = await failure(http.get("http://hub.invalid/secret"))
    assert (error.code, error.retryable) == (Code.HUB_UNREACHABLE, True)
    assert "hub.invalid" in error.message


async def test_a_load_balancer_has_a_code_of_its_own() -> None:
    async with Http(AddressRule(True), HostBudgets(), unreachable=Code.PROXY_UNREACHABLE) as http:
        error = await failure(http.get(f"http://127.0.0.1:{free_port()}/"))
    assert error.code is Code.PROXY_UNREACHABLE
    assert "LLMLB_URL" in error.hint


async def test_a_certificate_that_nobody_signed_is_said(http: Http, tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await failure(http.get(f"https://localhost:{port}/secret", AUTH))
    assert error.code is Code.HUB_UNREACHABLE
    assert "certificate is not trusted" in error.message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001"])
async def test_an_address_inside_is_not_connected_to_however_it_is_written(serve_raw: ServeRaw, host: str) -> None:
    async def talk(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        raise AssertionError("no request should have come here")

    port = (await serve_raw(talk)).rpartition(":")[2]
    async with Http(AddressRule(False, "https://huggingface.co"), HostBudgets()) as http:
        error = await failure(http.get(f"http://{host}:{port}/"))
    assert error.code is Code.HUB_PROTOCOL
    assert host in error.message


async def test_no_socket_is_made_for_a_refused_address_whatever_led_there(serve_raw: ServeRaw) -> None:
    class Forgetful(AddressRule):
        def check_literal(self, host: str) -> None:
            """Lets every literal pass, so that only the gate at the socket is left."""

    async def talk(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        raise AssertionError("no request should have come here")

    async with Http(Forgetful(False), HostBudgets()) as http:
        error = await failure(http.get(await serve_raw(talk)))
    assert error.code is Code.HUB_PROTOCOL


async def test_a_redirect_into_this_network_is_refused(serve: Serve) -> None:
    """The proxy of the environment stands for the world: a public Hub answers through it."""

    async def world(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")

    environ = {"HTTP_PROXY": await serve(world)}
    async with Http(AddressRule(False, "http://hub.example"), HostBudgets(), environ=environ) as http:
        error = await failure(http.get("http://hub.example/"))
    assert error.code is Code.HUB_PROTOCOL
    assert "169.254.169.254" in error.message


async def test_requests_go_through_the_proxy_of_the_environment(serve: Serve) -> None:
    async def proxy(request: web.Request) -> web.Response:
        return web.json_response([request.method, str(request.url), request.headers.get("Proxy-Authorization")])

    environ = {"http_proxy": (await serve(proxy)).replace("//", "//user:secret@")}
    async with Http(AddressRule(False), HostBudgets(), environ=environ) as http:
        answer = await http.get("http://hub.example/api?x=1")
    assert answer.json() == ["GET", "http://hub.example/api?x=1", "Basic dXNlcjpzZWNyZXQ="]


async def test_a_proxy_that_is_down_is_named_as_the_cause() -> None:
    environ = {"HTTP_PROXY": f"http://user:secret@127.0.0.1:{free_port()}"}
    async with Http(AddressRule(False), HostBudgets(), environ=environ) as http:
        error = await failure(http.get("http://hub.example/"))
    assert error.code is Code.HUB_UNREACHABLE
    assert "proxy" in error.message
    assert "NO_PROXY" in error.hint


async def test_a_proxy_that_refuses_to_connect_is_passing(serve_raw: ServeRaw) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with Http(AddressRule(False), HostBudgets(), environ={"HTTPS_PROXY": await serve_raw(talk)}) as http:
        error = await failure(http.get("https://hub.example/"))
    assert error.code is Code.HUB_UNREACHABLE
    assert "407" in error.message


async def test_a_host_that_wants_a_long_pause_is_not_asked_and_the_pause_told(serve: Serve) -> None:
    asked = 0

    async def hub(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=429, headers={"RateLimit": '"api";r=0;t=55'})

    url = await serve(hub)
    async with Http(AddressRule(True), HostBudgets()) as http:
        assert (await http.get(url)).status == 429
        error = await failure(http.get(f"{url}/other"))
    assert (error.code, error.retryable) == (Code.RATE_LIMITED, True)
    assert error.retry_after_s == pytest.approx(56, abs=5)
    assert asked == 1


async def test_a_short_pause_is_kept(serve: Serve) -> None:
    times: list[float] = []

    async def hub(_: web.Request) -> web.Response:
        times.append(asyncio.get_running_loop().time())
        refused = len(times) == 1
        return web.Response(status=429 if refused else 200, headers={"Retry-After": "1"} if refused else {})

    url = await serve(hub)
    async with Http(AddressRule(True), HostBudgets()) as http:
        assert (await http.get(url)).status == 429
        assert (await http.get(url)).status == 200
    assert times[1] - times[0] >= 0.99


async def test_many_requests_wait_for_a_slot_and_not_against_their_deadline(serve: Serve) -> None:
    async def hub(_: web.Request) -> web.Response:
        await asyncio.sleep(0.5)  # ten rounds of these take longer than one deadline, and one of them far less
        return web.Response()

    url = await serve(hub)
    async with Http(AddressRule(True), HostBudgets(), limits=Limits(connect_s=2.0, head_s=2.0)) as http:
        answers = await asyncio.gather(*(http.get(url) for _ in range(10 * IN_FLIGHT)))
    assert {answer.status for answer in answers} == {200}
