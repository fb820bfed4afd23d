"""What went wrong on the way to a host, as an error that people can act on and that shows no URL."""

from __future__ import annotations

import os
import ssl

import aiohttp

from agent.core.names import show
from agent.errors import Code, WantdError
from agent.net.redirect import origin


class Forbidden(OSError):
    """Carries the refusal of an address through aiohttp's connector, which passes on OSErrors only."""

    def __init__(self, refusal: WantdError) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class NoResponse(WantdError):
    """The host cannot be reached, or closed the connection without a response: all requests to it will end so.

    A class of its own because a source that is gone must not be taken for one that has a fault with one file.
    """


def protocol_error(url: str, what: str, hint: str = "check HF_ENDPOINT, or report it to its operator") -> WantdError:
    """`hub_protocol`: the host sent `what`, and asking again is no use."""
    return WantdError(Code.HUB_PROTOCOL, f"unexpected response from {show(origin(url).host, 80)}: {what}", hint)


def fault(error: Exception, url: str, *, proxied: bool, code: Code) -> WantdError:
    """The WantdError for what aiohttp or the system raised: passing ones with `code`, broken HTTP `hub_protocol`.

    The texts of aiohttp's own errors hold URLs and headers, so none of them is shown.
    """
    refused = getattr(error, "os_error", error)
    if isinstance(refused, Forbidden):
        return refused.refusal
    host = show(origin(url).host, 80)
    if isinstance(error, aiohttp.ClientResponseError) and not isinstance(error, aiohttp.ClientHttpProxyError):
        return protocol_error(url, "not valid HTTP")
    if isinstance(error, ValueError) and not isinstance(error, OSError):  # certificate errors are both
        return WantdError(Code.HUB_PROTOCOL, f"{host} cannot be asked: the URL is not valid", "check HF_ENDPOINT")
    way = " through the proxy of the environment" if proxied else ""
    where = "the proxy variables (HTTPS_PROXY, NO_PROXY)" if proxied else "the network and the name"
    mirror = (
        "correct proxy.url (LLMLB_URL)"
        if code is Code.PROXY_UNREACHABLE
        else "set HF_ENDPOINT to a mirror, or LLMLB_URL"
    )
    return NoResponse(
        code,
        f"{host} cannot be reached{way}: {_reason(error)}",
        f"check {where}, or {mirror}; wantd keeps trying",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no response in time"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return "connecting to the proxy failed"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = error.certificate_error
        return "its certificate is not trusted" + (
            f" ({why.verify_message})" if isinstance(why, ssl.SSLCertVerificationError) else ""
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ClientConnectorError):
        code = error.os_error.errno  # asyncio's own text repeats the address
        return os.strerror(code).lower() if code else "no connection"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | ConnectionError):
        return "it closed the connection too early"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return "the connection failed"
