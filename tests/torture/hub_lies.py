"""The hostile Hub: every lie of the adversary, through a real agent, and what it has to come to."""

from __future__ import annotations

import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.harness import AgentProcess, contents, wait_until
from tests.torture.adversary import Adversary
from tests.torture.cases import Case, SomeBroke
from tests.torture.lies import ALL, INSIDE, ROWS, SWITCHES
from tests.torture.truth import content_of

TOKEN = "hf_torture"
DEADLINE_S = 150.0  # the slowest promise is the body of a listing: 60 s, once more after a pause
HOUR_S = 3700.0  # no server stops us for longer than an hour, and some jitter
RSS_MAX = 150_000_000  # bytes; memory stays flat whatever a server sends
RSS_TOGETHER = 400_000_000  # bytes: 16 listings of 16 MiB at a time, while 90 lies are told at once


def agent_for(root: Path, hub: str, **more: Any) -> AgentProcess:
    """An agent that loses its patience soon, so that what is slow is done in seconds."""
    settings: dict[str, Any] = {
        "policy__allow": "any",
        "transfer__jobs": 200,
        "transfer__stall_timeout_s": 1,
        "transfer__retry_min_s": 0.1,
        "transfer__retry_max_s": 0.3,
        "hub__answer_timeout_s": 3,
        "HF_TOKEN": TOKEN,
    }
    return AgentProcess(root, hub, **(settings | more))


def outcome(agent: AgentProcess, name: str) -> str | None:
    """How it stands: `ready`, or the code of the error that it failed with or waits after; None while it is moving."""
    answer = agent.progress(name)
    if answer is None:
        return None
    if answer["state"] == "ready":
        return "ready"
    if answer["state"] == "failed":
        assert answer["error"]["hint"], answer
        return str(answer["error"]["code"])
    waiting = answer["waiting"] or {}
    if waiting.get("for") == "rate_limit":
        return "rate_limited"
    return str(waiting["because"]["code"]) if waiting.get("for") == "retry" else None


def check(agent: AgentProcess, lie: str) -> str | None:
    """What is wrong with how a lie ended, or None."""
    seen: list[str | None] = [None]

    def ended() -> bool:
        now = outcome(agent, lie)
        seen[0] = now or seen[0]
        return now == "ready" if "ready" in ALL[lie].ends else seen[0] is not None

    try:
        wait_until(ended, f"{lie} ends", DEADLINE_S)
    except AssertionError as error:
        return f"{error}: {shown(agent, lie)}"
    if seen[0] not in ALL[lie].ends:
        return f"{lie} ended with {seen[0]}, not with {' or '.join(ALL[lie].ends)}: {shown(agent, lie)}"
    if lie.endswith("-year") and (later := waits_s(agent, lie)) > HOUR_S:
        return f"{lie} makes the agent wait for {later:.0f} s"
    if seen[0] == "ready":
        return wrong_bytes(agent, lie, f"evil/{lie}")
    return None


def waits_s(agent: AgentProcess, name: str) -> float:
    """Seconds until the next try, as the answer says it."""
    until = ((agent.progress(name) or {})["waiting"] or {}).get("until")
    return (datetime.fromisoformat(until) - datetime.now(UTC)).total_seconds() if until else 0.0


def wrong_bytes(agent: AgentProcess, name: str, repo: str) -> str | None:
    data = Path(agent.ready(name)).read_bytes()
    return None if data == content_of(repo) else f"{name}: {len(data)} bytes that are not the file's"


def shown(agent: AgentProcess, name: str) -> str:
    """What the answer says, in short."""
    answer = agent.progress(name) or {}
    return f"{answer.get('state')}, waiting {answer.get('waiting')}, error {answer.get('error')}"


def check_after(agent: AgentProcess, adversary: Adversary, good: str, rss_max: int = RSS_MAX) -> list[str]:
    """The next want works; memory is flat; the token went nowhere and stands nowhere; nothing wrong is published."""
    agent.drop("good", good)
    problems = [wrong_bytes(agent, "good", good)]
    if agent.rss_bytes() > rss_max:
        problems.append(f"{agent.rss_bytes()} bytes of memory")
    if "127.0.0.2" in adversary.tokens:
        problems.append("the storage saw the token")
    texts = [agent.log(), *(path.read_text() for path in agent.spool.glob("*.progress"))]
    problems += [f"{secret} is in a log or answer" for secret in (TOKEN, "secret-") if any(secret in t for t in texts)]
    for path, data in contents(agent.store).items():
        repo = str(path.parent.relative_to(agent.store))
        if path.suffix == ".gguf" and ".partial" not in path.parts and data != content_of(repo):
            problems.append(f"{path} is published and wrong")
    if any(path.name not in ("agent.log", "spool", "models", "hub") for path in agent.root.iterdir()):
        problems.append(f"outside the store: {[path.name for path in agent.root.iterdir()]}")
    return [problem for problem in problems if problem]


def together(lies: list[str]) -> Case:
    """Many lies at once, in one agent."""

    def run(root: Path) -> None:
        problems: dict[str, list[str]] = {}
        with Adversary() as adversary, agent_for(root, adversary.hub) as agent:
            for lie in lies:
                agent.drop(lie, f"evil/{lie}")
            for lie in lies:
                if problem := check(agent, lie):
                    problems.setdefault(ROWS[lie], []).append(problem)
            after = check_after(agent, adversary, "good/next", RSS_TOGETHER)
        assert not after, "\n".join(after)
        if problems:
            raise SomeBroke(problems)

    return Case(f"{len(lies)} lies at once", run, faults=Counter(ROWS[lie] for lie in lies))


def single(lie: str, *, brief: bool) -> Case:
    """One lie in an agent of its own, then the truth."""

    def run(root: Path) -> None:
        with Adversary() as adversary, agent_for(root, adversary.hub) as agent:
            agent.drop(lie, f"evil/{lie}")
            problem = check(agent, lie)
            assert problem is None, problem
            if not SWITCHES[lie].alone:  # the host asked everybody to wait: the next want waits as well
                problems = check_after(agent, adversary, "good/next")
                assert not problems, "\n".join(problems)

    return Case(lie, run, brief=brief, faults={ROWS[lie]: 1})


def into_this_network(root: Path) -> None:
    """A public Hub that redirects into the host's own network: to loopback, private, shared and mapped addresses."""
    # The agent takes the Hub for a public one: it is asked through an HTTP proxy, which is the adversary.
    agent = agent_for(root, "http://hub.example")
    with Adversary() as adversary:
        agent.environ["http_proxy"] = adversary.hub
        with agent:
            all_refused(agent, adversary)


def all_refused(agent: AgentProcess, adversary: Adversary) -> None:
    """None of the addresses inside is connected to."""
    for name in INSIDE:
        agent.drop(name, f"evil/{name}")
    problems = [problem for name in INSIDE if (problem := check(agent, name))]
    problems += [f"{repo} was asked for" for repo, step in adversary.seen if step == "bytes"]
    assert not problems, "\n".join(problems)


def to_plain_http(root: Path) -> None:
    """A Hub over TLS that redirects to plain http."""
    certificate, key = root / "cert.pem", root / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,IP:127.0.0.2",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with (
        Adversary() as plain,
        Adversary(context, plain.cdn) as adversary,
        agent_for(root / "a", adversary.hub, SSL_CERT_FILE=certificate) as agent,
    ):
        agent.drop("downgrade", "evil/downgrade")
        problem = check(agent, "downgrade")
        assert problem is None, problem
        assert not plain.seen, "plain http was asked"
        problems = check_after(agent, adversary, "good/next")
        assert not problems, "\n".join(problems)


def cases(_: int) -> Iterator[Case]:
    """All of them: at once, and each alone."""
    shared = [name for name, switch in SWITCHES.items() if not switch.alone]
    yield together([name for name in shared if not SWITCHES[name].slow])
    yield Case("redirects into this network", into_this_network, faults={ROWS[lie]: len(INSIDE) for lie in INSIDE})
    yield Case("a redirect from https to http", to_plain_http, faults={ROWS["downgrade"]: 1})
    for name, switch in SWITCHES.items():
        yield single(name, brief=name == "resolve-429-year" and switch.alone)
