"""`wantd check` says how the proxy is, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import AgentProcess
from tests.hub.process import HubProcess
from tests.proxy.places import DEAD, Balancer


@pytest.mark.parametrize(
    ("kind", "key", "grade", "said"),
    [
        ("auto", "", "ok", "reachable"),
        ("llmlb", "sk_1", "ok", "reachable"),
        ("llmlb", "", "BAD", "set LLM_RUNTIME_API_KEY"),
        ("dead", "", "BAD", "connection refused"),
    ],
)
def test_check_says_how_the_proxy_is(
    tmp_path: Path,
    hub: HubProcess,
    make_balancer: Callable[..., Balancer],
    kind: str,
    key: str,
    grade: str,
    said: str,
) -> None:
    url = DEAD if kind == "dead" else make_balancer(key="sk_1").url
    settings = {"proxy__url": url, "proxy__kind": "auto" if kind == "dead" else kind, "LLM_RUNTIME_API_KEY": key}
    done = AgentProcess(tmp_path, hub.endpoint, **settings).wantd("check")
    [line] = [line for line in done.stdout.splitlines() if " proxy " in line]
    assert line.split()[0] == grade
    assert said in done.stdout
    assert done.returncode == (grade == "BAD")
    assert "sk_1" not in done.stdout + done.stderr
