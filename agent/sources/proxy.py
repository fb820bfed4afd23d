"""The configured proxy, whatever it is: a load balancer of llmlb or a mirror of the Hub. Found out once, by asking."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from loguru import logger

from agent.core.names import SafeName
from agent.core.ports import Source
from agent.core.remote import Listing, Location, Query
from agent.errors import Code, WantdError
from agent.sources.hub import HubSource

T = TypeVar("T")


class ProxySource:
    """One of two sources: the one that answered. `kind` is `auto`, or says at once which it is (`llmlb`, `hub`).

    The mirror is asked first, without any key: its responses show that it is one, and so the key of a load balancer is
    never sent to a mirror.
    """

    def __init__(self, llmlb: Source, mirror: HubSource, kind: str = "auto") -> None:
        self._llmlb = llmlb
        self._mirror = mirror
        self._known: Source | None = {"llmlb": llmlb, "hub": mirror}.get(kind)

    @property
    def name(self) -> str:
        """`llmlb` or `mirror`; `proxy` until it is known."""
        return self._known.name if self._known else "proxy"

    async def listing(self, query: Query) -> Listing:
        """See `core.ports.Source`."""
        return await self._ask(lambda source: source.listing(query))

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        """See `core.ports.Source`."""
        return await self._ask(lambda source: source.locate(query, name, failed))

    async def _ask(self, ask: Callable[[Source], Awaitable[T]]) -> T:
        if self._known is not None:
            return await ask(self._known)
        refusal = None
        try:
            result = await ask(self._mirror)
        except WantdError as error:
            if error.code is Code.PROXY_UNREACHABLE:
                raise
            refusal = error
        if not self._mirror.recognised:  # a load balancer may show a page for any path: that is no mirror
            return await self._ask_balancer(ask, refusal)
        self._settle(self._mirror)
        if refusal is not None:
            raise refusal
        return result

    async def _ask_balancer(self, ask: Callable[[Source], Awaitable[T]], refusal: WantdError | None) -> T:
        try:
            result = await ask(self._llmlb)
        except WantdError as error:
            if error.retryable or refusal is None:
                raise
            raise WantdError(
                error.code,
                f"asked as a load balancer: {error.message}; asked as a mirror: {refusal.message}",
                f"{error.hint}; set proxy.kind to llmlb or hub, if it is the one and not the other",
                model=error.model,
                file=error.file,
            ) from None
        self._settle(self._llmlb)
        return result

    def _settle(self, source: Source) -> None:
        self._known = source
        logger.info("the proxy is {}", "a mirror of the Hub" if source is self._mirror else "a load balancer of llmlb")
