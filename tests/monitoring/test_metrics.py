"""What a real agent tells Prometheus: promtool finds no fault with it, and the rules are over what is there."""

from __future__ import annotations

import subprocess
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess
from tests.monitoring.test_rules import METRICS


def test_an_agent_tells_what_the_rules_and_the_dashboard_are_over(tmp_path: Path) -> None:
    with HubProcess() as hub, AgentProcess(tmp_path, hub.endpoint, http__listen="127.0.0.1:0") as agent:
        agent.drop("a", "qwen3")
        agent.ready("a")
        url = wait_until(lambda: agent.wantd("open", "--print").stdout.strip(), "the agent says where its page is")
        with urllib.request.urlopen(f"{url.rstrip('/')}/metrics") as response:
            text = response.read().decode()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    families = {family.name for family in text_string_to_metric_families(text)}
    assert {name.removesuffix("_total").removesuffix("_bucket") for name in METRICS} <= families
