"""Little that costs much: wants, manifests and repositories that are made to take the most time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.harness import AgentProcess, wait_until
from tests.torture.adversary import Adversary
from tests.torture.bystander import RSS_MAX, Bystander
from tests.torture.cases import Case
from tests.torture.hub_lies import agent_for
from tests.torture.lives import world
from tests.torture.truth import COMMIT, FILE, Asked, Sent, answer

LONG_S = 600.0


def state(agent: AgentProcess, name: str) -> str:
    answer = agent.progress(name)
    return str(answer["state"]) if answer else "none"


def drop_all(agent: AgentProcess, wants: Mapping[str, Any]) -> None:
    for name, content in wants.items():
        agent.drop(name, content)


# -- a repository of many files -------------------------------------------------------------------------------------


@cache
def many_files(count: int) -> bytes:
    """A listing of small files with long names that differ at their end."""
    files = [
        {"rfilename": f"data/part-of-the-whole-{n:06d}-{n % 200:03d}.txt", "size": 10, "blobId": f"{n:040x}"}
        for n in range(count)
    ]
    files.append({"rfilename": FILE, "size": 2**30, "blobId": "b" * 40, "lfs": {"sha256": "a" * 64, "size": 2**30}})
    return json.dumps({"sha": COMMIT, "private": False, "gated": False, "siblings": files}).encode()


def large_repository(count: int, asked: Asked) -> Iterator[Sent] | None:
    """`large/…` has many files, none of which ever comes."""
    if not asked.repo.startswith("large/"):
        return None
    if asked.path.startswith("/api/"):
        return answer(200, many_files(count), Content_Type="application/json")
    return iter([60.0])


def patterns(files: int, root: Path, *, timed: bool) -> None:
    """One want whose every pattern has to be held against every file."""
    many = [f"*part*of*the*whole*{n:03d}.txt" for n in range(100)] + [f"*[a-z]*-{n:03d}.t?t" for n in range(100, 200)]
    with (
        Adversary(own=partial(large_repository, files)) as hub,
        agent_for(root, hub.hub) as agent,
        Bystander(agent, timed=timed) as bystander,
    ):
        drop_all(agent, {
            "files": {"model": "large/a", "files": many},
            "exclude": {"model": "large/b", "exclude": many, "snapshot": "all"},
        })  # fmt: skip
        for name in ("files", "exclude"):
            agent.wait(name, "downloading", "waiting", "failed", deadline_s=LONG_S)
        bystander.wait_for(5)


def excludes(files: int, wants: int, root: Path, *, timed: bool) -> None:
    """Many wants that differ in what they exclude: each is a plan of its own, and few of them can be carried out."""
    with (
        Adversary(own=partial(large_repository, files)) as hub,
        agent_for(root, hub.hub, transfer__jobs=2) as agent,
        Bystander(agent, timed=timed) as bystander,
    ):
        drop_all(agent, {
            f"w{n}": {"model": "large/a", "snapshot": "all", "exclude": [f"*-{n:03d}.txt"]} for n in range(wants)
        })  # fmt: skip
        for number in range(wants):
            agent.wait(f"w{number}", "downloading", "waiting", "failed", deadline_s=LONG_S)
        bystander.wait_for(10)


# -- wants of many models -------------------------------------------------------------------------------------------


def manifests(count: int, models: int, root: Path, *, timed: bool, policy: str = "catalog") -> None:
    """Manifests of names that are not known, or of models that are not there; then the catalog is touched."""
    catalog = root / "catalog.json"
    catalog.write_bytes(world().catalog.read_bytes())
    with (
        Adversary(own=lambda _: answer(404)) as hub,
        agent_for(root / "a", hub.hub, policy__allow=policy, catalog__path=catalog) as agent,
        Bystander(agent, timed=timed) as bystander,
    ):
        own = agent.spool / "producer"
        own.mkdir()
        for number in range(count):
            names = [f"no/such-model-{n if policy == 'any' else n * count + number}" for n in range(models)]
            (own / f"m{number}.want").write_text(json.dumps({"models": names}))
        for number in range(count):
            agent.wait(f"producer/m{number}", "failed", deadline_s=LONG_S)
        known = json.loads(catalog.read_text())
        catalog.write_text(json.dumps([*known, {"id": "one-more", "repo": "torture/nest"}]))
        wait_until(lambda: f"{len(known) + 1} models" in agent.log(), "the catalog is read again")
        bystander.wait_for(20)
        for path in own.glob("*.want"):
            path.unlink()
        wait_until(lambda: not os.listdir(own), "nothing is left", LONG_S)


def fat_wants(count: int, root: Path, *, timed: bool) -> None:
    """Wants of a megabyte each, all of which would have to be remembered."""
    with (
        Adversary() as hub,
        agent_for(root, hub.hub, policy__allow="catalog") as agent,
        Bystander(agent, timed=timed) as bystander,
    ):
        item = {"model": "no-such", "files": ["x" * 500 for _ in range(200)]}
        text = json.dumps({"models": [item] * 10, "labels": {f"l{n}": "x" * 500 for n in range(50)}})
        for number in range(count):
            agent.drop(f"producer/w{number}", text)
        wait_until(lambda: state(agent, f"producer/w{count - 1}") == "failed", "the last is told", LONG_S)
        bystander.wait_for(10)


# -- one model, many wants ------------------------------------------------------------------------------------------

PRODUCER = """
import os, sys
folder, count, content = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.makedirs(folder, exist_ok=True)
for number in range(count):
    with open(f"{folder}/.w{number}", "w") as file:
        file.write(content)
    os.rename(f"{folder}/.w{number}", f"{folder}/w{number:06d}.want")
"""


def produce(agent: AgentProcess, count: int, content: str, folder: str = "producer") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PRODUCER, str(agent.spool / folder), str(count), content])


def drip(asked: Asked) -> Iterator[Sent] | None:
    """A model that comes slowly, and never to its end."""
    if "/resolve/" not in asked.path and not asked.path.startswith("/api/"):
        start, end = asked.range or (0, len(asked.content))
        fields = {"Content_Range": f"bytes {start}-{end - 1}/{len(asked.content)}", "ETag": '"v1"'}
        pieces = answer(206, asked.content[start:end], **fields)
        head, body = next(pieces), next(pieces)
        return iter([head, *[piece for at in range(0, len(body), 500) for piece in (body[at : at + 500], 0.05)]])  # type: ignore[arg-type,operator]
    return None


def one_slow_model(count: int, root: Path, *, timed: bool, rss_max: int) -> None:
    """Wants without number for one model whose bytes come slowly: each has the same progress to tell, all the time."""
    with (
        Adversary(own=drip) as hub,
        agent_for(root, hub.hub, transfer__connections=1, transfer__stall_timeout_s=60) as agent,
        Bystander(agent, timed=timed, rss_max=rss_max) as bystander,
    ):
        producer = produce(agent, count, "good/slow")
        producer.wait(LONG_S)
        wait_until(lambda: state(agent, f"producer/w{count - 1:06d}") == "downloading", "the last is told", LONG_S)
        bystander.wait_for(20)


def unwritable(count: int, root: Path, *, timed: bool) -> None:
    """Thousands of wants whose progress file cannot be written: the names are taken by directories."""
    with (
        Adversary() as hub,
        agent_for(root, hub.hub, policy__allow="catalog", scheduler__rescan_s=2) as agent,
        Bystander(agent, timed=timed) as bystander,
    ):
        own = agent.spool / "producer"
        own.mkdir()
        for number in range(count):
            (own / f"w{number}.progress").mkdir()
        for number in range(count):
            (own / f"w{number}.want").write_text("no-such-model")
        wait_until(lambda: "cannot write" in agent.log(), "it is said")
        bystander.wait_for(100)
        said = agent.log().count("cannot write")
        assert said < 200, f"{said} warnings"


def cases(_: int) -> Iterator[Case]:
    yield from both("a repository of {:,} files and wants of 200 patterns", patterns, (5_000,), (50_000,))
    yield from both(
        "a repository of {:,} files, {} wants that differ in `exclude`", excludes, (5_000, 10), (60_000, 40)
    )
    yield from both(
        "{} manifests of {:,} unknown names, then the catalog is touched", manifests, (4, 2_000), (40, 10_000)
    )
    yield from both("{} manifests of {:,} repositories that are not there", partial(manifests, policy="any"),
                    (2, 300), (10, 2_000))  # fmt: skip
    yield from both("{:,} wants of a megabyte", fat_wants, (20,), (1_000,))
    yield from both("{:,} wants for one slow model", partial(one_slow_model, rss_max=RSS_MAX), (1_000,), (20_000,))
    yield from both("{:,} wants for one slow model, all told", partial(one_slow_model, rss_max=450_000_000),
                    None, (100_000,))  # fmt: skip
    yield from both("{:,} wants whose progress cannot be written", unwritable, (1_100,), (10_000,))


def both(title: str, run: Callable[..., None], few: tuple[Any, ...] | None, many: tuple[Any, ...]) -> Iterator[Case]:
    """The brief form of a case, and the long one, whose latency counts."""
    row = title.format(*many)
    if few is not None:
        yield Case(title.format(*few), partial(run, *few, timed=False), faults={row: 1})
    yield Case(row, partial(run, *many, timed=True), brief=False)
