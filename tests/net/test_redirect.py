"""A redirect leads to http(s) only, never down from https, and shows no signature when it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Code, WantdError
from agent.net.redirect import MAX_HOPS, host_key, next_hop, origin, same_origin

HERE = "https://hub.example/a/b?c=d"


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        (
            "https://cdn.example/x?Signature=a%2Fb~c&Key-Pair-Id=K",
            "https://cdn.example/x?Signature=a%2Fb~c&Key-Pair-Id=K",
        ),
        ("/api/resolve-cache/x?e=%22y%22", "https://hub.example/api/resolve-cache/x?e=%22y%22"),
        ("next", "https://hub.example/a/next"),
        ("//cdn.example/y", "https://cdn.example/y"),
        ("?q=1", "https://hub.example/a/b?q=1"),
        ("https://cdn.example", "https://cdn.example/"),
        ("https://cdn.example/x#part", "https://cdn.example/x"),
        ("HTTPS://CDN.example/x", "https://CDN.example/x"),
        ("/a b/ü", "https://hub.example/a%20b/%C3%BC"),
        ("/a\\b", "https://hub.example/a%5Cb"),
    ],
)
def test_a_redirect_is_resolved_and_its_signature_left_as_it_is(location: str, leads_to: str) -> None:
    assert next_hop(HERE, location, 0) == leads_to


@pytest.mark.parametrize(
    "location",
    [
        "", "http://hub.example/x", "ftp://hub.example/x", "file:///etc/passwd", "javascript:alert(1)", "data:,x",
        "https://user@hub.example/", "https://user:secret@hub.example/", "https://hub.example\r\nX: y",
        "/x\ny", "/\x00",
        "https://[::1", "https://hub.example:99999/", "https://hub.example:x/",
        "https://hub\\@evil.example/", "https://h ub.example/", "//%2e%2e/", "https://hüb.example/", "/" + "x" * 20000,
    ],
)  # fmt: skip
def test_dangerous_redirects_are_refused(location: str) -> None:
    with pytest.raises(WantdError) as caught:
        next_hop(HERE, location, 0)
    assert caught.value.code is Code.HUB_PROTOCOL
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_http_may_lead_to_https_and_http() -> None:
    assert next_hop("http://hub.example/", "http://cdn.example/x", 0) == "http://cdn.example/x"
    assert next_hop("http://hub.example/", "https://cdn.example/x", 0) == "https://cdn.example/x"


def test_ten_redirects_are_followed_and_no_more() -> None:
    next_hop(HERE, "/x", MAX_HOPS - 1)
    with pytest.raises(WantdError, match="10 are followed"):
        next_hop(HERE, "/x", MAX_HOPS)


def test_a_refusal_shows_no_signature() -> None:
    with pytest.raises(WantdError) as caught:
        next_hop(HERE, "http://cdn.example/x?Signature=SECRET", 0)
    assert "SECRET" not in f"{caught.value} {caught.value.to_json()} {caught.value!r}"


@given(st.text(max_size=200))
def test_any_location_is_a_good_url_or_refused(location: str) -> None:
    try:
        url = next_hop(HERE, location, 0)
    except WantdError as error:
        assert error.code is Code.HUB_PROTOCOL
    else:
        assert origin(url).scheme == "https"
        assert url.isascii() and url.isprintable() and " " not in url


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("https://h/x", "https://H:443/y", True),
        ("https://h.", "https://h", True),
        ("http://h", "https://h", False),
        ("https://h", "https://h:8443", False),
        ("https://h", "https://sub.h", False),
        ("http://127.0.0.1:1", "http://localhost:1", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(a: str, b: str, same: bool) -> None:
    assert same_origin(a, b) is same


def test_budgets_are_kept_by_host_and_port() -> None:
    assert host_key("https://Hub.Example/x?y") == "hub.example:443"
    assert host_key("http://[::1]:8080") == "[::1]:8080"
