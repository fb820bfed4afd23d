"""Metrics for Prometheus: names and labels are a contract (docs/http.md), and no label is a stranger's choice.

A registry of our own, with one collector that reads what the parts of the agent keep; only what they do not keep is
counted here, by one subscriber of the feed.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from aiohttp import web
from loguru import logger
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from agent.clock import Clock
from agent.core.states import State
from agent.core.waits import ForRateLimit, ForRetry
from agent.disk import Sync, atomic_write
from agent.errors import WantdError
from agent.http.models import Shelf, Use
from agent.http.reads import Facts
from agent.http.wants import Wants
from agent.state.feed import Change, Feed
from agent.state.job import Job
from agent.state.news import ModelNews
from agent.state.ticket import Ticket

LOOK_S = 0.2  # between two looks at the feed
TEXTFILE_S = 15.0  # Prometheus scrapes node_exporter about that often
READY_BUCKETS_S = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)
BUCKETS = frozenset({"api", "resolvers", "pages"})  # of rate limits, as the Hub names them; others are `other`
_Ended = tuple[State, int, tuple[str, ...]]  # state, attempt, codes of errors


class Metrics:
    """`serve` counts; `text` is what a scrape gets."""

    def __init__(self, facts: Facts, feed: Feed, wants: Wants, shelf: Shelf, clock: Clock) -> None:
        self._facts = facts
        self._changes = feed.subscribe()
        self._wants = wants
        self._shelf = shelf
        self._clock = clock
        self._use = Use(0, 0)
        self._seen: dict[Job | Ticket, _Ended] = {}
        self.published: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.evictions: Counter[str] = Counter()
        self._ready = [0] * (len(READY_BUCKETS_S) + 1)  # by bucket, the last one without a bound
        self._ready_s = 0.0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(self))

    def table(self) -> list[web.RouteDef]:
        """The route."""
        return [web.get("/metrics", self.metrics, name="metrics")]

    async def metrics(self, _: web.Request) -> web.Response:
        """All metrics, in the text format of Prometheus."""
        return web.Response(body=await self.text(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def text(self) -> bytes:
        """The same for a file."""
        self._use = await self._shelf.use()
        return generate_latest(self._registry)

    async def serve(self) -> None:
        """Count until cancelled."""
        while True:
            await self._changes.wait()
            self.look()
            await asyncio.sleep(LOOK_S)

    async def write(self) -> None:
        """Write `http.metrics_textfile`, where there is to be one, until cancelled."""
        while True:
            if path := self._facts.live.config.http.metrics_textfile:
                text = await self.text()
                try:
                    await asyncio.to_thread(atomic_write, path, text, mode=0o644, sync=Sync.NONE)
                except OSError as error:
                    logger.warning("cannot write {}: {}", path, error.strerror)
            await asyncio.sleep(TEXTFILE_S)

    def look(self) -> None:
        """Count what the feed has."""
        for subject, change in self._changes.take().items():
            if isinstance(subject, ModelNews):
                if subject.what == "published":
                    self.published[subject.source.partition("+")[0]] += 1
                elif subject.what == "evicted":
                    self.evictions[subject.reason or "room"] += 1
            elif isinstance(subject, Job | Ticket) and change is Change.GONE:
                self._seen.pop(subject, None)
            elif isinstance(subject, Job) and change is Change.STATE:
                self._job(subject)
            elif isinstance(subject, Ticket):
                own = [error for error in (subject.error, *subject.parts) if isinstance(error, WantdError)]
                self._ended(subject, (State.FAILED, subject.attempt, tuple(error.code.value for error in own)))

    def _job(self, job: Job) -> None:
        progress = job.progress
        wait, error = progress.waiting, progress.error
        because: WantdError | None = wait.because if isinstance(wait, ForRetry) else error
        code = "rate_limited" if isinstance(wait, ForRateLimit) else because.code.value if because else None
        if not self._ended(job, (progress.state, progress.attempt, (code,) if code else ())):
            return
        if progress.state is State.READY and progress.source != "store":
            now = self._clock.now()
            for ticket in job.wanted_by:
                if ticket.state is State.READY:
                    self._observe((now - ticket.created_at).total_seconds())

    def _ended(self, subject: Job | Ticket, ended: _Ended) -> bool:
        """Note how it stands. False where that is known."""
        if self._seen.get(subject) == ended:
            return False
        if ended[2] or subject in self._seen or isinstance(subject, Job):
            self._seen[subject] = ended
        self.errors.update(ended[2])
        return True

    def _observe(self, seconds: float) -> None:
        at = next((at for at, most in enumerate(READY_BUCKETS_S) if seconds <= most), len(READY_BUCKETS_S))
        self._ready[at] += 1
        self._ready_s += max(seconds, 0.0)

    def families(self) -> Iterator[Metric]:
        """Everything as it is now."""
        facts, wants = self._facts, self._wants
        yield _counter("wantd_downloaded_bytes", "Bytes received, by source.", "source", facts.received())
        yield _counter("wantd_refetched_bytes", "Bytes that had to be fetched again.", "reason", facts.dropped())
        yield _counter("wantd_models_published", "Models published, by source.", "source", self.published)
        yield _counter("wantd_errors", "Errors of models and wants, by code.", "code", self.errors)
        yield _counter("wantd_evictions", "Models removed to make room.", "reason", self.evictions)
        requests = CounterMetricFamily("wantd_http_requests", "Responses of other hosts.", labels=["host", "status"])
        for (host, status), count in sorted(facts.responses().items()):
            requests.add_metric([host, str(status)], count)
        yield requests
        build = GaugeMetricFamily("wantd_build_info", "The version that runs.", labels=["version"])
        build.add_metric([facts.agent.version], 1)
        yield build
        states = {state.value: wants.counts[state] for state in State}
        yield _gauge("wantd_wants", "Wants, by state.", "state", states)
        yield _gauge("wantd_waiting", "Wants that wait, by what for.", "for", wants.waiting)
        kinds = {"published": self._use.published, "partial": self._use.partial}
        yield _gauge("wantd_store_bytes", "Bytes of the store on disk.", "kind", kinds)
        yield GaugeMetricFamily("wantd_store_free_bytes", "Free bytes of the store's file system.", _free(facts))
        yield GaugeMetricFamily("wantd_store_reserved_bytes", "Bytes reserved for downloads.", facts.reserved())
        yield GaugeMetricFamily("wantd_connections", "Connections that carry bytes.", facts.connections())
        limits = GaugeMetricFamily(
            "wantd_ratelimit_remaining", "Requests that a host still allows.", labels=["host", "bucket"]
        )
        for host, quota in facts.quotas():
            limits.add_metric([host, quota.name if quota.name in BUCKETS else "other"], quota.remaining)
        yield limits
        scanned = facts.scanned_at()
        at = scanned.timestamp() if scanned else 0
        yield GaugeMetricFamily("wantd_last_scan_timestamp_seconds", "When the spool was scanned last.", at)
        yield self._histogram()

    def _histogram(self) -> Metric:
        total, buckets = 0, []
        for bound, count in zip([*map(str, map(float, READY_BUCKETS_S)), "+Inf"], self._ready, strict=True):
            total += count
            buckets.append((bound, total))
        text = "Time from a want to its model, of models that were fetched."
        return HistogramMetricFamily("wantd_want_ready_seconds", text, buckets=buckets, sum_value=self._ready_s)


class _Collector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value or "unknown"], count)
    return family


def _gauge(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], max(count, 0))
    return family


def _free(facts: Facts) -> int:
    try:
        disk = os.statvfs(facts.layout.root)
    except OSError:
        return 0
    return disk.f_frsize * disk.f_bavail
