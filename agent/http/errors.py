"""Refusals as JSON: `{"error": {"code", "message", "hint"}}` with their status."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from loguru import logger

SAFETY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class Refusal(Exception):
    """A request that is not served: why, and what to do about it."""

    def __init__(
        self, status: int, code: str, message: str, hint: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.hint, self.headers = status, code, hint, dict(headers or {})

    def response(self) -> web.Response:
        """What to send."""
        return json({"error": {"code": self.code, "message": str(self), "hint": self.hint}}, self.status, self.headers)


def json(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON document that nothing keeps."""
    return raw_json(orjson.dumps(document), status, headers)


def raw_json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON document that was encoded before."""
    all_headers = {"Cache-Control": "no-store", **SAFETY_HEADERS, **(headers or {})}
    return web.Response(body=body, status=status, content_type="application/json", headers=all_headers)


def not_found(what: str, hint: str) -> Refusal:
    """404."""
    return Refusal(404, "not_found", what, hint)


def bad_request(message: str, hint: str = "see docs/http.md") -> Refusal:
    """400: the query or the body cannot be read."""
    return Refusal(400, "bad_request", message, hint)


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn refusals, aiohttp's own among them, and faults of ours into responses."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return refusal.response()
    except web.HTTPException as error:
        headers = {name: value for name, value in error.headers.items() if name == "Allow"}
        code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(error.status, "bad_request")
        return Refusal(error.status, code, error.reason, "see docs/http.md for the routes", headers).response()
    except ConnectionError:
        raise  # the client has gone
    except Exception as error:  # noqa: BLE001  the boundary of a request: a fault in here must not end the agent
        logger.opt(exception=error).error("a fault of wantd itself, in the response to {}", ascii(request.path))
        return Refusal(500, "internal", f"{type(error).__name__} in the agent", "see the agent's log").response()
