"""Metrics: the names that the page lists, values that follow what happens, no label of a stranger's."""

from __future__ import annotations

import re
from pathlib import Path

from agent.core.states import State
from agent.errors import Code
from agent.state.job import Job
from agent.state.news import ModelNews
from tests.fakes import error, published, settle, target, ticket
from tests.harness import CHECKOUT, wait_until
from tests.http.conftest import Face, Inside

LISTED = re.findall(r"^\| `(wantd_\w+)(?:\{([\w,]+)\})?` \| (\w+) \|", (CHECKOUT / "docs/http.md").read_text(), re.M)


def test_every_metric_is_on_the_page_with_its_type_and_labels(face: Face) -> None:
    face.agent.drop("qwen3", {"model": "qwen3", "labels": {"secret": "label"}})
    face.agent.drop("bad", "no-such-model")
    face.agent.ready("qwen3")
    face.agent.failed("bad")

    def text() -> str:
        return face.ask("/metrics").body.decode()

    wait_until(lambda: 'wantd_errors_total{code="model_not_supported"} 1.0' in text(), "it is counted")
    found = text()
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", found, re.M))
    assert types == {name: kind for name, _, kind in LISTED}
    labels = {name: labels for name, labels, kind in LISTED if labels}
    for name, shown in re.findall(r"^(\w+)\{(.*)\} \S+$", found, re.M):
        if not name.endswith("_bucket"):
            assert ",".join(re.findall(r'(\w+)="', shown)) in (labels[name], ",".join(sorted(labels[name].split(","))))
    assert 'wantd_models_published_total{source="hub"} 1.0' in found
    assert re.search(r'^wantd_downloaded_bytes_total\{source="hub"\} [1-9]', found, re.M)
    assert re.search(r'^wantd_http_requests_total\{host="127.0.0.1:\d+",status="200"\} [1-9]', found, re.M)
    assert re.search(r"^wantd_store_bytes\{kind=\"published\"\} [1-9]", found, re.M)
    assert "wantd_want_ready_seconds_count 1.0" in found
    assert "qwen3" not in found
    assert "secret" not in found


def test_a_file_is_kept_for_node_exporter(face: Face) -> None:
    path = face.agent.root / "wantd.prom"
    face.agent.stop()
    face.agent.set(http__metrics_textfile=path, http__listen="")
    face.agent.start()
    wait_until(path.exists, "the file is there")
    assert "wantd_build_info" in Path(path).read_text()
    assert path.stat().st_mode & 0o444 == 0o444


async def test_an_attempt_counts_once_and_a_model_in_the_store_is_no_news(inside: Inside) -> None:
    metrics, one = inside.face.metrics, target("one")
    job, want = Job(one, inside.feed), ticket("a")
    job.add(want, 5)
    job.resolve()
    job.fail(error(Code.GATED))
    metrics.look()
    inside.feed.changed(job)
    metrics.look()
    assert metrics.errors == {"gated": 1}
    job.again()
    job.resolve()
    job.fail(error(Code.GATED))
    metrics.look()
    assert metrics.errors == {"gated": 2}
    want.parts = [job]
    job.again()
    job.ready(published(one))
    assert want.state is State.READY
    metrics.look()
    assert b"wantd_want_ready_seconds_count 0.0" in await metrics.text()
    for what in ("published", "evicted", "evicted", "removed"):
        inside.feed.changed(ModelNews("m", what, "hub+mirror", "quota"))  # type: ignore[arg-type]
        metrics.look()
    await settle()
    assert metrics.published == {"hub": 1}
    assert metrics.evictions == {"quota": 2}
