"""What a host fetches is told to the balancer, and a balancer that does not answer delays nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.harness import AgentProcess, wait_until
from tests.hub.faults import Faults
from tests.hub.process import HubProcess
from tests.proxy.places import GGUF_FILE, Balancer, qwen3, write_catalog

StartAgent = Callable[..., AgentProcess]


def test_idle_running_success_and_failed_are_told(
    start_agent: StartAgent, make_balancer: Callable[..., Balancer], hub: HubProcess, tmp_path: Path
) -> None:
    balancer = make_balancer(key="sk_1")
    hub.fault("cdn/*", max_rate=1_500_000)
    catalog = write_catalog(tmp_path, qwen3(), {"id": "gone", "repo": "wantd/missing"})
    agent = start_agent(
        hub.endpoint,
        proxy__url=balancer.url,
        proxy__report="true",
        catalog__path=catalog,
        transfer__connections=1,
        LLM_RUNTIME_API_KEY="sk_1",
    )
    reports = balancer.it.reports
    wait_until(lambda: [r["state"] for r in reports] == ["idle"], "it is idle")
    agent.drop("qwen3")
    running = wait_until(lambda: next((r for r in reports if r["state"] == "running" and r["file"]), None), "running")
    assert (running["model"], running["file"]) == ("qwen3", GGUF_FILE)
    assert 0 <= running["bytes_done"] <= running["bytes_total"]
    assert running["host"]
    assert running["agent"].startswith("wantd ")
    hub.clear_faults()
    success = wait_until(lambda: next((r for r in reports if r["state"] == "success"), None), "success")
    assert (success["model"], success["bytes_done"]) == ("qwen3", success["bytes_total"])
    agent.drop("gone")
    failed = wait_until(lambda: next((r for r in reports if r["state"] == "failed"), None), "failed")
    assert (failed["model"], failed["error"]["code"]) == ("gone", "unauthorized")
    for want in ("qwen3", "gone"):
        (agent.spool / f"{want}.want").unlink()
    wait_until(lambda: reports[-1]["state"] == "idle", "idle again")


def test_nothing_is_told_where_nobody_asked_for_it(
    start_agent: StartAgent, make_balancer: Callable[..., Balancer], hub: HubProcess
) -> None:
    balancer = make_balancer()
    agent = start_agent(hub.endpoint, proxy__url=balancer.url)
    agent.drop("qwen3")
    agent.ready("qwen3")
    assert not balancer.asked()


def test_a_balancer_that_does_not_answer_delays_nothing(
    start_agent: StartAgent, make_balancer: Callable[..., Balancer], hub: HubProcess
) -> None:
    silent = make_balancer()
    silent.it.faults.set("llmlb/*", Faults(latency_s=3600))
    agent = start_agent(hub.endpoint, proxy__report="true", proxy__report_url=f"{silent.url}/api/models/sync-state")
    wait_until(silent.asked, "a report is on its way")
    for number in range(5):
        agent.drop(f"w{number}", {"model": "qwen3", "exclude": [f"{number}"]})
    for number in range(5):
        agent.ready(f"w{number}")
    wait_until(lambda: "did not accept a report" in agent.log(), "it was given up")
    assert agent.stop() == 0
    assert "stopping took over" not in agent.log()
