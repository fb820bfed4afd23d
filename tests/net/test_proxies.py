"""The proxy variables mean what they mean to curl."""

from __future__ import annotations

import pytest

from agent.errors import WantdError
from agent.net.proxies import proxy_for

PROXY = "http://proxy.corp:3128"


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://hub.example/x", {}, None),
        ("https://hub.example/x", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://hub.example/x", {"https_proxy": PROXY, "HTTPS_PROXY": "http://other"}, PROXY),
        ("https://hub.example/x", {"HTTP_PROXY": PROXY}, None),
        ("http://hub.example/x", {"HTTP_PROXY": PROXY}, PROXY),
        ("https://hub.example/x", {"ALL_PROXY": PROXY}, PROXY),
        ("https://hub.example/x", {"HTTPS_PROXY": "proxy.corp:3128"}, PROXY),
        ("https://hub.example/x", {"HTTPS_PROXY": ""}, None),
        ("http://localhost:9/x", {"ALL_PROXY": PROXY}, None),
        ("http://127.0.0.1:9/x", {"ALL_PROXY": PROXY}, None),
        ("http://[::1]:9/x", {"ALL_PROXY": PROXY}, None),
    ],
)
def test_the_proxy_is_found(url: str, environ: dict[str, str], proxy: str | None) -> None:
    assert proxy_for(url, environ) == proxy


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("hub.example", "*", True),
        ("hub.example", "hub.example", True),
        ("hub.example", "other, .example", True),
        ("hub.example", "example", True),
        ("hub.example", "*.example", True),
        ("myhub.example", "hub.example", False),
        ("hub.example", "sub.hub.example", False),
        ("hub.example:8443", "hub.example:8443", True),
        ("hub.example", "hub.example:8443", False),
        ("hub.example", ", ,:443,.", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]", "[fd00::1]", True),
    ],
)
def test_no_proxy_is_honoured(host: str, no_proxy: str, direct: bool) -> None:
    found = proxy_for(f"https://{host}/x", {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})
    assert found == (None if direct else PROXY)


def test_a_proxy_that_does_not_speak_http_is_an_error_that_says_so() -> None:
    with pytest.raises(WantdError, match="socks5") as caught:
        proxy_for("https://hub.example/", {"ALL_PROXY": "socks5://u:secret@proxy:1080"})
    assert "secret" not in f"{caught.value} {caught.value.hint}"
