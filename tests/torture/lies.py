"""The lies of the adversary, by row of the table: how each is told, and what it has to come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.torture.truth import (
    FILE,
    LARGE,
    TRUTH,
    Asked,
    Lie,
    Sent,
    answer,
    bytes_of,
    endless,
    head,
    listing,
    resolve,
    sibling,
    span,
    step_of,
)  # fmt: skip

YEAR_S = 31_536_000
MANY = 2**30  # bytes: more than anybody should take


@dataclass(frozen=True)
class Switch:
    """A lie, the step it is told at (`listing`, `resolve`, `bytes`), and how it has to end: error codes, `ready` among
    them where the right bytes can still be had. `alone`: it makes the host wait, and everybody else with it.
    """

    at: str
    lie: Lie
    ends: frozenset[str]
    alone: bool = False
    slow: bool = False  # takes longer than `make test` has


# -- lies in the listing ------------------------------------------------------------------------------------------


def named(*names: str) -> Lie:
    return lambda asked: listing(asked, *[sibling(asked.content, rfilename=name) for name in names])


def sized(size: Any) -> Lie:
    return lambda asked: listing(asked, sibling(asked.content, size=size, lfs={"sha256": "a" * 64, "size": size}))


def said(status: int, body: bytes = b"", length: int | None = -1, **headers: str) -> Lie:
    return lambda _: answer(status, body, length, **headers)


def raw(*pieces: Sent) -> Lie:
    return lambda _: iter(pieces)


def gigabyte_of_json(_: Asked) -> Iterator[Sent]:
    return endless(head(200, MANY, Content_Type="application/json") + b"[", b"[1,2,3,4],".ljust(10) * 6000)


def trickle(_: Asked) -> Iterator[Sent]:
    yield b"HTTP/1.1 200 OK\r\n"
    for _ in range(1000):
        yield 0.3
        yield b"X"


def endless_headers(_: Asked) -> Iterator[Sent]:
    return endless(b"HTTP/1.1 200 OK\r\n", b"X-Filler: " + b"x" * 1000 + b"\r\n")


def one_endless_header(_: Asked) -> Iterator[Sent]:
    return endless(b"HTTP/1.1 200 OK\r\nX-Filler: ", b"x" * 65536)


def slow_body(asked: Asked) -> Iterator[Sent]:
    """All is well, at one byte a second."""
    parts = list(TRUTH["listing" if asked.path.startswith("/api/") else "bytes"](asked))
    whole = b"".join(part for part in parts if isinstance(part, bytes))
    end = whole.index(b"\r\n\r\n") + 4
    yield whole[:end]
    for at in range(end, len(whole)):
        yield 1.0
        yield whole[at : at + 1]


def login_page(_: Asked) -> Iterator[Sent]:
    return answer(200, b"<!DOCTYPE html><html><body>Please log in</body></html>", Content_Type="text/html")


# -- lies in redirects --------------------------------------------------------------------------------------------


def to(location: str) -> Lie:
    return lambda asked: resolve(
        asked,
        location.format(
            hub=asked.hub, cdn=asked.cdn, path=asked.path, port=asked.hub.rpartition(":")[2], elsewhere=asked.elsewhere
        ),
    )


def deeper(asked: Asked) -> Iterator[Sent]:
    """A redirect that leads to another one, for ever."""
    return resolve(asked, f"{asked.hub}{asked.path.partition('?')[0]}?{asked.number}")


# -- lies about bytes ---------------------------------------------------------------------------------------------


def flipped(asked: Asked) -> bytes:
    content = asked.content
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


def cut_off(asked: Asked) -> Iterator[Sent]:
    """Announces all and closes in the middle."""
    parts = b"".join(part for part in bytes_of(asked) if isinstance(part, bytes))
    yield parts[: parts.index(b"\r\n\r\n") + 4 + (len(parts) - parts.index(b"\r\n\r\n") - 4) // 2]


def no_length(asked: Asked) -> Iterator[Sent]:
    """The right bytes, ended by the end of the connection."""
    start, end = span(asked)
    fields = {"Content_Range": f"bytes {start}-{end - 1}/{len(asked.content)}"} if asked.range else {}
    yield from answer(206 if asked.range else 200, asked.content[start:end], None, **fields)


def no_length_cut(asked: Asked) -> Iterator[Sent]:
    """Close-delimited, and ended too early: nothing but the size and the hash can tell."""
    start, end = span(asked)
    fields = {"Content_Range": f"bytes {start}-{end - 1}/{len(asked.content)}"} if asked.range else {}
    yield from answer(206 if asked.range else 200, asked.content[start : (start + end) // 2], None, **fields)


def endless_body(asked: Asked) -> Iterator[Sent]:
    start, end = span(asked)
    fields = {"Content_Range": f"bytes {start}-{end - 1}/{len(asked.content)}"} if asked.range else {}
    return endless(head(206 if asked.range else 200, None, **fields))


def whole_file(asked: Asked) -> Iterator[Sent]:
    """200 to a range: right bytes from byte 0, which must not be appended anywhere."""
    return answer(200, asked.content, ETag='"v1"')


def changing_etag(asked: Asked) -> Iterator[Sent]:
    return bytes_of(asked, ETag=f'"v{asked.number}"')


def changing_bytes(asked: Asked) -> Iterator[Sent]:
    """Another version in the middle: other bytes under another ETag."""
    content = asked.content if asked.number == 0 else flipped(asked)
    return bytes_of(asked, content, ETag='"old"' if asked.number == 0 else '"new"')


def gzipped(asked: Asked) -> Iterator[Sent]:
    return bytes_of(asked, Content_Encoding="gzip")


def multipart(asked: Asked) -> Iterator[Sent]:
    return bytes_of(asked, Content_Type="multipart/byteranges; boundary=x")


def stops(asked: Asked) -> Iterator[Sent]:
    """The head and a bit, then silence."""
    parts = b"".join(part for part in bytes_of(asked) if isinstance(part, bytes))
    yield parts[:2000]
    yield 3600.0


def expired(asked: Asked) -> Iterator[Sent]:
    """Each signed URL is good for one request, the first two not even for that."""
    if asked.number < 2:
        return answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    return bytes_of(asked)


def once(status: int, **headers: str) -> Lie:
    """A fault that passes."""
    return lambda asked: answer(status, b"", **headers) if asked.number == 0 else TRUTH[step_of(asked)](asked)


def ends(*codes: str) -> frozenset[str]:
    return frozenset(codes)


PROTOCOL, PATH, READY = ends("hub_protocol"), ends("forbidden_path"), ends("ready")
UNREACHABLE, STALLED, MISMATCH = ends("hub_unreachable"), ends("stalled"), ends("checksum_mismatch")

# Redirects from a public Hub into the network of the host, and from https to http: each needs a setting of its own.
INSIDE: dict[str, Switch] = {
    f"inside-{number}": Switch("resolve", to(f"http://{host}/x"), PROTOCOL)
    for number, host in enumerate(
        ["127.0.0.1:{port}", "localhost:{port}", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
         "[::1]:{port}", "[::ffff:127.0.0.1]:{port}", "0.0.0.0:{port}", "[64:ff9b::7f00:1]:{port}"]
    )
}  # fmt: skip
DOWNGRADE = {"downgrade": Switch("resolve", to("{elsewhere}/good/x/" + FILE), PROTOCOL)}

FAULTS: dict[str, dict[str, Switch]] = {  # by row of the table
    "a name in the listing that leads out: `..`, absolute, backslash": {
        "name-dotdot": Switch("listing", named("../../x.gguf"), PATH),
        "name-absolute": Switch("listing", named("/etc/x.gguf"), PATH),
        "name-backslash": Switch("listing", named("..\\x.gguf"), PATH),
    },
    "the same name twice": {
        "name-twice": Switch("listing", named(FILE, FILE), PATH),
    },
    "names that differ by case alone": {
        "name-case": Switch("listing", named("W.gguf", "w.gguf"), PATH),
    },
    "over-long names and paths": {
        "name-long": Switch("listing", named("x" * 300 + ".gguf"), PATH),
        "name-deep": Switch("listing", named("d/" * 2000 + "x.gguf"), PATH),
    },
    "NUL and newline in names": {
        "name-nul": Switch("listing", named("a\0b.gguf"), PATH),
        "name-newline": Switch("listing", named("a\nb.gguf"), PATH),
    },
    "an empty name": {
        "name-empty": Switch("listing", named(""), PATH),
    },
    "names that are a file of ours, a surrogate, a number": {
        "name-record": Switch("listing", named(".wantd.json"), PATH),
        "name-surrogate": Switch("listing", named("a\ud800.gguf"), PATH | PROTOCOL),
        "name-number": Switch("listing", lambda a: listing(a, sibling(a.content, rfilename=7)), PROTOCOL),
    },
    "a file that is also a directory": {
        "file-and-folder": Switch("listing", named("w.gguf", "w.gguf/x.gguf"), PATH),
    },
    "negative sizes": {
        "size-negative": Switch("listing", sized(-1), PROTOCOL),
    },
    "enormous sizes": {
        "size-huge": Switch("listing", sized(2**62), PROTOCOL),
        "size-float": Switch("listing", sized(1e300), PROTOCOL),
        "size-larger-than-any-disk": Switch("listing", sized(2**49), ends("insufficient_space")),
    },
    "sizes that are text, or do not agree": {
        "size-text": Switch("listing", sized("12"), PROTOCOL),
        "size-larger": Switch("listing", lambda a: listing(a, sibling(a.content, size=LARGE + 1)), PROTOCOL),
    },
    "no file, and 120,000 files": {
        "files-none": Switch("listing", lambda a: listing(a, siblings=[]), ends("file_not_found", "ambiguous_file")),
        "files-too-many": Switch(
            "listing",
            lambda a: listing(a, *[{"rfilename": f"{n}", "size": 1, "blobId": "b" * 40} for n in range(120_000)]),
            PROTOCOL,
        ),
    },
    "a commit that is none, or a path": {
        "commit-none": Switch("listing", lambda a: listing(a, sha=None), PROTOCOL),
        "commit-path": Switch("listing", lambda a: listing(a, sha="../../../etc"), PROTOCOL),
    },
    "JSON that is broken, deep, or something else": {
        "json-scalar": Switch("listing", said(200, b"7"), PROTOCOL),
        "json-broken": Switch("listing", said(200, b'{"sha": '), PROTOCOL),
        "json-deep": Switch("listing", said(200, b"[" * 100_000 + b"]" * 100_000), PROTOCOL),
        "json-nan": Switch("listing", said(200, b'{"sha": NaN}'), PROTOCOL),
    },
    "JSON of 1 GB, of 5 million lists, without end": {
        "json-gigabyte": Switch("listing", gigabyte_of_json, PROTOCOL),
        "json-bloated": Switch("listing", said(200, b"[" + b"[]," * 5_000_000 + b"0]"), PROTOCOL),
        "json-endless": Switch("listing", lambda _: endless(head(200, None) + b"["), PROTOCOL),
    },
    "compressed JSON": {
        "json-gzip-bomb": Switch("listing", said(200, b"\x1f\x8b" + bytes(100), Content_Encoding="gzip"), PROTOCOL),
    },
    "an HTML login page as 200": {
        "listing-html": Switch("listing", login_page, PROTOCOL),
        "bytes-html": Switch("bytes", login_page, PROTOCOL),
        "html-small": Switch("bytes", login_page, PROTOCOL),
    },
    "slow headers": {
        "head-slow": Switch("listing", trickle, UNREACHABLE | STALLED, slow=True),
        "bytes-head-slow": Switch("bytes", trickle, STALLED | UNREACHABLE),
    },
    "huge and endless headers": {
        "head-huge": Switch("listing", said(200, b"{}", Filler="x" * 1_000_000), PROTOCOL),
        "head-endless": Switch("listing", endless_headers, PROTOCOL),
        "head-endless-line": Switch("listing", one_endless_header, PROTOCOL),
        "bytes-head-endless": Switch("bytes", endless_headers, PROTOCOL),
    },
    "an answer that is no HTTP, and none at all": {
        "head-garbage": Switch("listing", raw(b"\x16\x03\x01\x02\x00\x01" * 100), PROTOCOL),
        "head-none": Switch("listing", raw(), UNREACHABLE),
    },
    "one byte a second": {
        "listing-slow": Switch("listing", slow_body, UNREACHABLE | STALLED, slow=True),
        "slow": Switch("bytes", slow_body, STALLED),
        "slow-small": Switch("bytes", slow_body, STALLED),
    },
    "silence in mid-body": {
        "stops": Switch("bytes", stops, STALLED),
    },
    "redirect loops": {
        "redirect-loop": Switch("resolve", to("{hub}{path}"), PROTOCOL),
        "redirect-endless": Switch("resolve", deeper, PROTOCOL),
        "redirect-loop-listing": Switch("listing", to("{hub}{path}"), PROTOCOL),
    },
    "redirect to `file://` and `ftp://`": {
        "redirect-file": Switch("resolve", to("file:///etc/passwd"), PROTOCOL),
        "redirect-ftp": Switch("resolve", to("ftp://127.0.0.1/x"), PROTOCOL),
    },
    "redirect from https to plain http": DOWNGRADE,
    "redirect to loopback, private and mapped addresses": {
        "redirect-metadata": Switch("resolve", to("http://169.254.169.254/latest/meta-data"), PROTOCOL),
        **INSIDE,
    },
    "redirect to a host that must not see the token": {
        "redirect-storage": Switch("resolve", resolve, READY),  # the truth: nobody may tell it to the storage
    },
    "redirect without a target, with a login, a split header, a port out of range": {
        "redirect-nowhere": Switch("resolve", to(""), PROTOCOL),
        "redirect-userinfo": Switch("resolve", to("http://user:secret@127.0.0.2/x"), PROTOCOL),
        "redirect-split": Switch("resolve", to("{cdn}/x%0d%0aAuthorization:%20x"), MISMATCH),
        "redirect-no-port": Switch("resolve", to("http://127.0.0.2:99999/x"), PROTOCOL),
    },
    "short body": {
        "short": Switch("bytes", cut_off, UNREACHABLE),
        "announced-short": Switch("bytes", lambda a: bytes_of(a, a.content[:-100]), PROTOCOL),
        "short-small": Switch("bytes", cut_off, UNREACHABLE),
    },
    "endless body": {
        "endless": Switch("bytes", endless_body, MISMATCH),
        "endless-small": Switch("bytes", endless_body, PROTOCOL | MISMATCH),
    },
    "a body without length, ended by the connection": {
        "no-length": Switch("bytes", no_length, READY),
        "no-length-small": Switch("bytes", no_length, READY),
    },
    "the same, cut short": {
        "no-length-cut": Switch("bytes", no_length_cut, UNREACHABLE),
    },
    "206 with a wrong Content-Range": {
        "range-moved": Switch("bytes", lambda a: bytes_of(a, wrong=1), PROTOCOL),
        "range-star": Switch("bytes", lambda a: bytes_of(a, Content_Range="bytes */*"), PROTOCOL),
    },
    "206 without Content-Range": {
        "range-unsaid": Switch("bytes", lambda a: bytes_of(a, Content_Range=""), PROTOCOL),
    },
    "multipart ranges": {
        "range-multipart": Switch("bytes", multipart, PROTOCOL),
    },
    "200 to a range": {
        "range-ignored": Switch("bytes", whole_file, READY),
    },
    "416 to a range": {
        "range-416": Switch("bytes", said(416, Content_Range="bytes */0"), PROTOCOL),
    },
    "gzip on a range, and on a file": {
        "range-gzip": Switch("bytes", gzipped, PROTOCOL),
        "gzip-small": Switch("bytes", gzipped, PROTOCOL),
    },
    "ETag and content that change in mid-file": {
        "etag-changes": Switch("bytes", changing_etag, READY),
        "bytes-change": Switch("bytes", changing_bytes, MISMATCH | PROTOCOL),
    },
    "wrong hash": {
        "wrong-hash": Switch("bytes", lambda a: bytes_of(a, flipped(a)), MISMATCH),
        "wrong-hash-small": Switch("bytes", lambda a: bytes_of(a, flipped(a)), MISMATCH),
    },
    "wrong size": {
        "wrong-size": Switch("bytes", lambda a: bytes_of(a, a.content + b"more"), PROTOCOL),
        "wrong-size-small": Switch("bytes", lambda a: bytes_of(a, a.content + b"more"), PROTOCOL),
    },
    "a signed URL that has expired": {
        "expired": Switch("bytes", expired, READY),
    },
}

_REFUSED = {  # what a status means at each step, for somebody with a token
    "listing": {401: ends("unauthorized", "token_invalid"), 403: ends("unauthorized"), 404: ends("model_not_found")},
    "resolve": {401: ends("unauthorized", "token_invalid"), 403: ends("unauthorized"), 404: ends("file_not_found")},
    "bytes": {401: UNREACHABLE, 403: UNREACHABLE, 404: UNREACHABLE},
}
for _at, _statuses in _REFUSED.items():
    for _status, _ends in (_statuses | {500: UNREACHABLE, 503: UNREACHABLE}).items():
        FAULTS.setdefault(f"{_status} at each step", {})[f"{_at}-{_status}"] = Switch(_at, said(_status), _ends)
    _limited = ends("rate_limited")
    _year = {"Retry_After": str(YEAR_S)}
    FAULTS.setdefault("429 at each step", {})[f"{_at}-429"] = Switch(_at, said(429), _limited, alone=True)
    FAULTS.setdefault("Retry-After of a year at each step", {}).update(
        {
            f"{_at}-429-year": Switch(_at, said(429, **_year), _limited, alone=True),
            f"{_at}-503-year": Switch(_at, said(503, **_year), _limited | UNREACHABLE, alone=True),
        }
    )
    FAULTS.setdefault("a 503 that passes", {})[f"{_at}-503-once"] = Switch(_at, once(503), READY)

ALL = {name: switch for row in FAULTS.values() for name, switch in row.items()}
ROWS = {name: row for row, switches in FAULTS.items() for name in switches}
SWITCHES = {name: switch for name, switch in ALL.items() if name not in INSIDE | DOWNGRADE}
