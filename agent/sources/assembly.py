"""The sources of one configuration, in their order, each with a client and an address rule of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from agent.config import Config, hub_token, proxy_key, report_url
from agent.core.retry import REPORT_CONNECT_S, REPORT_S
from agent.errors import Code, WantdError
from agent.net.address import AddressRule
from agent.net.budget import HostBudgets
from agent.net.client import Http, Limits
from agent.net.redirect import same_origin
from agent.sources.chain import Chain
from agent.sources.hub import HubSource
from agent.sources.llmlb import LlmlbSource
from agent.sources.proxy import ProxySource

REPORT_LIMITS = Limits(connect_s=REPORT_CONNECT_S, head_s=REPORT_S, body_s=REPORT_S, body_bytes=64 * 1024)


class Assembly:
    """Builds the chain, and again when the configuration changes. To be closed with `close`.

    Each client has an address rule of its own, which goes with every location that was found through it: a load
    balancer is private most often and the Hub is not, and what the one may redirect to, the other may not.
    """

    def __init__(self, config: Config, environ: Mapping[str, str], budgets: HostBudgets) -> None:
        self._environ = environ
        self._budgets = budgets
        hub = config.hub
        limits = Limits(connect_s=hub.connect_timeout_s, head_s=hub.answer_timeout_s)
        self._hub = Http(AddressRule(False, hub.endpoint), budgets, environ=environ, limits=limits)
        self._proxy: tuple[str, Http] | None = None
        self._report: tuple[str, Http] | None = None
        self.chain = self._build(config)

    async def rebuild(self, config: Config) -> None:
        """Take over another configuration; questions to a proxy that is no longer configured end as unreachable."""
        old, chain = (self._proxy, self._report), self.chain
        self.chain = self._build(config)
        await chain.close()
        for before, now in zip(old, (self._proxy, self._report), strict=True):
            if before is not None and before is not now:
                await before[1].close()

    async def close(self) -> None:
        """Close every connection."""
        await self.chain.close()
        clients = [self._hub, *(pair[1] for pair in (self._proxy, self._report) if pair)]
        await asyncio.gather(*(client.close() for client in clients))

    def reporter(self, config: Config) -> Callable[[Mapping[str, Any]], Awaitable[None]] | None:
        """What posts a document to `proxy.report_url`, None where nothing is to be reported. Raises WantdError."""
        url = report_url(config)
        if not config.proxy.report or not url or self._report is None:
            return None
        # The key is the load balancer's: no other address gets it.
        key = proxy_key(self._environ) if config.proxy.url and same_origin(url, config.proxy.url) else None
        http = self._report[1]

        async def send(document: Mapping[str, Any]) -> None:
            response = await http.post(url, document, f"Bearer {key}" if key else None)
            if response.status >= 300:
                raise WantdError(
                    Code.PROXY_UNREACHABLE,
                    f"it answered {response.status}",
                    "check proxy.report_url, or set proxy.report to false",
                )

        return send

    def _build(self, config: Config) -> Chain:
        token = hub_token(config, self._environ)
        hub = HubSource(self._hub, self._budgets, config.hub.endpoint, token=token, offline=config.hub.offline)
        self._proxy = self._client(self._proxy, config.proxy.url, None)
        self._report = self._client(self._report, report_url(config) if config.proxy.report else "", REPORT_LIMITS)
        if self._proxy is None:
            return Chain([hub])
        url, http = self._proxy
        llmlb = LlmlbSource(http, self._budgets, url, key=proxy_key(self._environ), hub=config.hub.endpoint)
        mirror = HubSource(http, self._budgets, url, name="mirror")  # no token: it is the Hub's alone
        return Chain([hub, ProxySource(llmlb, mirror, config.proxy.kind)])

    def _client(self, old: tuple[str, Http] | None, url: str, limits: Limits | None) -> tuple[str, Http] | None:
        """The client for a URL that a person configured: the one there is, if it is for the same."""
        if old is not None and old[0] == url:
            return old
        if not url:
            return None
        rule = AddressRule(False, url)
        http = Http(rule, self._budgets, environ=self._environ, unreachable=Code.PROXY_UNREACHABLE, limits=limits)
        return url, http
