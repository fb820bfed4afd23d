"""The sources of one configuration, in their order, each with a client and an address rule of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from agent.clock import Clock
from agent.config import Config, hub_token, proxy_key, report_url
from agent.core.names import SafeName
from agent.core.ports import Source
from agent.core.remote import Listing, Location, Query
from agent.core.retry import DOOR_CONNECT_S, REPORT_CONNECT_S, REPORT_S
from agent.errors import Code, WantdError
from agent.net.address import AddressRule
from agent.net.budget import HostBudgets
from agent.net.client import Http, Limits
from agent.net.redirect import same_origin
from agent.sources.chain import Chain, SourceHealth
from agent.sources.fleet import Door, FleetSource, connects_to
from agent.sources.host_caches import HostCaches
from agent.sources.hub import HubSource
from agent.sources.hub_cache import HubCacheSource, has_hub_cache
from agent.sources.llmlb import LlmlbSource
from agent.sources.proxy import ProxySource

REPORT_LIMITS = Limits(connect_s=REPORT_CONNECT_S, head_s=REPORT_S, body_s=REPORT_S, body_bytes=64 * 1024)


class Assembly:
    """The sources of the configuration in force, behind the contract of one. To be closed with `close`.

    Where `config` gives another configuration than before, the chain is built again at the next question; questions to
    a client that is no longer configured end as unreachable. Each client has an address rule of its own, which goes
    with every location that was found through it: a load balancer is private most often and the Hub is not, and what
    the one may redirect to, the other may not.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        environ: Mapping[str, str],
        budgets: HostBudgets,
        clock: Clock,
        host_caches: HostCaches | None = None,
    ) -> None:
        self._config = config
        self._environ = environ
        self._budgets = budgets
        self._clock = clock
        self._host_caches = host_caches
        self._clients: dict[str, tuple[object, Http]] = {}  # by what they are for, with what they were made from
        self._built_for: Config | None = None
        self._chain: Chain | None = None
        self._source: Source | None = None  # the chain, or the fleet before it

    async def source(self) -> Source:
        """The sources of the configuration in force, as one."""
        config = self._config()
        if self._source is None or config is not self._built_for:
            old_chain, old_clients = self._chain, dict(self._clients)
            self._chain, self._built_for = self._build(config), config
            self._source = self._with_fleet(config, self._chain)
            if old_chain is not None:
                await old_chain.close()
            for purpose, (_, client) in old_clients.items():
                if self._clients.get(purpose, (None, None))[1] is not client:
                    await client.close()
        return self._source

    @property
    def name(self) -> str:
        """See `core.ports.Source`."""
        return Chain.name

    async def listing(self, query: Query) -> Listing:
        """See `core.ports.Source`."""
        return await (await self.source()).listing(query)

    async def locate(self, query: Query, name: SafeName, failed: WantdError | None = None) -> Location:
        """See `core.ports.Source`."""
        return await (await self.source()).locate(query, name, failed)

    def health(self) -> list[SourceHealth]:
        """How each source was when it was asked last, in their order; empty before the first question."""
        return self._chain.health() if self._chain else []

    async def close(self) -> None:
        """Close every connection."""
        if self._chain is not None:
            await self._chain.close()
        await asyncio.gather(*(client.close() for _, client in self._clients.values()))

    async def report(self, document: Mapping[str, Any]) -> bool:
        """Post a document to `proxy.report_url`. False where nothing is to be reported. Raises WantdError."""
        await self.source()
        config = self._config()
        url = report_url(config)
        if not config.proxy.report or "report" not in self._clients:
            return False
        # The key is the load balancer's: no other address gets it.
        key = proxy_key(self._environ) if config.proxy.url and same_origin(url, config.proxy.url) else None
        answer = await self._clients["report"][1].post(url, document, f"Bearer {key}" if key else None)
        if answer.status >= 300:
            raise WantdError(
                Code.PROXY_UNREACHABLE,
                f"it answered {answer.status}",
                "check proxy.report_url, or set proxy.report to false",
            )
        return True

    def _build(self, config: Config) -> Chain:
        hub, proxy = config.hub, config.proxy
        limits = Limits(connect_s=hub.connect_timeout_s, head_s=hub.answer_timeout_s)
        hub_client = self._client("hub", hub.endpoint, limits, Code.HUB_UNREACHABLE)
        assert hub_client is not None  # noqa: S101  the configuration has no empty endpoint
        token = hub_token(config, self._environ)
        origin = HubSource(hub_client, self._budgets, hub.endpoint, token=token, offline=hub.offline)
        self._client("report", report_url(config) if proxy.report else "", REPORT_LIMITS, Code.PROXY_UNREACHABLE)
        client = self._client("proxy", proxy.url, Limits(), Code.PROXY_UNREACHABLE)
        caches = self._host_caches
        stand_in = HubCacheSource(caches) if caches and has_hub_cache(caches) else None
        if client is None:
            return Chain([origin], stand_in=stand_in)
        llmlb = LlmlbSource(client, self._budgets, proxy.url, key=proxy_key(self._environ), hub=hub.endpoint)
        mirror = HubSource(client, self._budgets, proxy.url, name="mirror")  # no token: it is the Hub's alone
        return Chain([origin, ProxySource(llmlb, mirror, proxy.kind)], stand_in=stand_in)

    def _with_fleet(self, config: Config, chain: Chain) -> Source:
        fleet = config.fleet
        limits = Limits(connect_s=DOOR_CONNECT_S, head_s=config.hub.answer_timeout_s)
        client = self._client("fleet", fleet.url, limits, Code.HUB_UNREACHABLE)
        if client is None:
            return chain
        door = Door(connects_to(fleet.url), self._clock, lambda: fleet.patience_s)
        listings = HubSource(client, self._budgets, fleet.url, name="fleet") if fleet.listings else None
        return FleetSource(
            fleet.url,
            door,
            client.rule,
            chain,
            self._clock,
            slice_bytes=fleet.slice_bytes,
            listings=listings,
            gated=fleet.gated,
        )

    def _client(self, purpose: str, url: str, limits: Limits, unreachable: Code) -> Http | None:
        """The client for a URL that a person configured: the one there is, if it was made for the same."""
        made_from = (url, limits)
        if not url:
            self._clients.pop(purpose, None)
            return None
        if purpose not in self._clients or self._clients[purpose][0] != made_from:
            rule = AddressRule(False, url)
            client = Http(rule, self._budgets, environ=self._environ, unreachable=unreachable, limits=limits)
            self._clients[purpose] = made_from, client
        return self._clients[purpose][1]
