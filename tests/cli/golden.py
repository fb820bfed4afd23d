"""The screens of `get`, `status` and `models` as they are kept in `tests/cli/screens/`.

`python -m tests.cli.golden` writes them again after a change that is meant; look at each before it is committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.cli import models, status
from agent.cli.table import PLAIN, Row, table
from agent.core.catalog import parse_catalog
from agent.reports.status import AgentFile, AgentState, Status
from tests.harness import CHECKOUT

SCREENS = Path(__file__).parent / "screens"
WIDTHS = (60, 80, 120)
HEIGHT = 24
LONG = "bartowski/Meta-Llama-3.1-70B-Instruct-GGUF:Q4_K_M"
TIME = "2026-12-01T02:00:00.000Z"
UNREACHABLE = {
    "code": "hub_unreachable",
    "message": "cannot reach https://huggingface.co: connection refused",
    "hint": "check the network",
    "retryable": True,
}
NOT_SUPPORTED = {
    "code": "model_not_supported",
    "message": "'qwen33' is not in the catalog of supported models",
    "hint": "did you mean qwen3?",
    "retryable": False,
}


def progress(state: str, fraction: float = 0.0, total: int | None = 4_920_000_000, **more: Any) -> dict[str, Any]:
    """A progress file, as far as the screens read it."""
    done = None if total is None else int(total * fraction)
    return {"state": state, "progress": fraction, "bytes_done": done, "bytes_total": total, **more}


MIXED = [
    Row("qwen3", progress("ready", 1.0, 484_220_320)),
    Row(LONG, progress("downloading", 0.4213, 42_520_000_000, rate_bytes_per_s=118_300_000, eta_s=208.0)),
    Row("gemma3", progress("verifying", 0.99, 3_300_000_000, eta_s=2.0)),
    Row("phi4", progress("waiting", 0.12, waiting={"for": "retry", "until": TIME, "because": UNREACHABLE})),
    Row("mistral", progress("waiting", 0.0, waiting={"for": "disk", "need_bytes": 4_370_000_000, "free_bytes": 10**9})),
    Row("llama3.1-8b", progress("waiting", 0.0, waiting={"for": "slot"})),
    Row("qwen33", progress("failed", 0.0, None, error=NOT_SUPPORTED)),
    Row("new", None),
]
STATES = ("downloading", "queued", "ready")
TWENTY = [
    Row(f"org/model-{number:02}", progress(STATES[number % 3], (0.5, 0.0, 1.0)[number % 3], rate_bytes_per_s=1_000_000))
    for number in range(30)
]


def _status() -> Status:
    said = AgentFile(4711, 1, TIME, "gpu-7", "0.1.0", "/var/spool/wantd", restart_needed=["http.listen"])
    wants = [
        {
            "want": f"{row.name.replace('/', '--')}.want",
            **(row.progress or {"state": "unanswered", "why": "not answered yet"}),
        }
        for row in MIXED[1:]
    ]
    counts = {"downloading": 1, "failed": 1, "ready": 17, "unanswered": 1, "verifying": 1, "waiting": 3}
    stored = [{"bytes": 2_800_000_000}] * 17
    return Status(AgentState(True, said), "/var/spool/wantd", "/var/lib/wantd/models", counts, wants, stored)


def screens() -> Iterator[tuple[str, str]]:
    """Names of files, and what is in them."""
    catalog = parse_catalog((CHECKOUT / "supported_models.json").read_bytes())
    for width in WIDTHS:
        yield f"get-{width}", _text(table(MIXED, width, HEIGHT))
        yield f"get-ascii-{width}", _text(table(MIXED, width, HEIGHT, PLAIN))
        yield f"get-many-{width}", _text(table(TWENTY, width, HEIGHT))
        yield f"status-{width}", _text(status.lines(_status(), False, width))
        yield f"models-{width}", _text(models.lines(models.matching(catalog, ""), {"qwen3"}, width))
    yield "get-40", _text(table(MIXED, 40, HEIGHT))


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Write them."""
    for name, text in screens():
        (SCREENS / f"{name}.txt").write_text(text)


if __name__ == "__main__":
    main()
