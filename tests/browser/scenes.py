"""What the page is shown with: made-up hosts in the shapes that the agent gives. Times are seconds before now."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.core.waits import ForDisk, ForLock, ForRateLimit, ForRetry, ForSlot, Holder, NotBefore, Wait, to_json
from agent.errors import Code, WantdError
from tests.browser.stub import Stub

GB = 1_000_000_000
MB = 1_000_000
MIB = 1024 * 1024
SPOOL = "/var/spool/wantd"
STORE = "/var/lib/wantd/models"


def when(seconds_ago: float) -> str:
    """That time, as a progress file writes it."""
    time = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def want(
    path: str,
    model: str,
    state: str,
    total: int | None = None,
    *,
    done: float = 0.0,
    rate: int = 0,
    source: str | None = "hub",
    **more: Any,
) -> dict[str, Any]:
    """A want for one model, as `/v1/wants` lists it; `done` is a share of `total`."""
    share = 1.0 if state == "ready" else done
    bytes_done = int((total or 0) * share)
    directory = model.lower().replace(":", "--")
    value: dict[str, Any] = {
        "schema": 1,
        "want": path.rpartition("/")[2],
        "path": path,
        "state": state,
        "progress": share,
        "bytes_done": bytes_done,
        "bytes_total": total,
        "rate_bytes_per_s": rate,
        "eta_s": round((total - bytes_done) / rate, 1) if rate and total else None,
        "models": [
            {
                "model": model,
                "repo": model.partition(":")[0],
                "revision": "main",
                "commit": sha256(model)[:40],
                "state": state,
                "source": source,
                "source_why": None,
                "verified": True if state == "ready" else None,
                "path": f"{STORE}/{directory}" if state == "ready" else None,
                "bytes_done": bytes_done,
                "bytes_total": total,
                "waiting": more.get("waiting"),
                "error": more.get("error"),
                "files": [],
            }
        ],
        "waiting": None,
        "waiting_text": None,
        "error": None,
        "attempt": 1,
        "priority": 5,
        "labels": {},
        "created_at": when(1300),
        "updated_at": when(0),
        "started_at": when(1290),
        "finished_at": when(120) if state in ("ready", "failed") else None,
        "agent": {"pid": 4711, "host": "gpu-7", "version": "0.2.0"},
    }
    return {**value, **more}


def error(code: str, message: str, hint: str, *, retryable: bool = False) -> dict[str, Any]:
    return {"code": code, "message": message, "hint": hint, "retryable": retryable, "model": None, "file": None}


def status(**more: Any) -> dict[str, Any]:
    """`/v1/status` without what the stub counts."""
    value: dict[str, Any] = {
        "agent": {
            "running": True,
            "pid": 4711,
            "started_at": when(3 * 86400 + 7000),
            "host": "gpu-7",
            "version": "0.2.0",
            "restart_needed": [],
        },
        "spool": SPOOL,
        "store": STORE,
        "waiting": {},
        "max_rate": 0,
        "rates": {"step_s": 2, "bytes_per_s": []},
        "window": None,
        "connections": 0,
        "disk": {
            "used_bytes": 0,
            "reserved_bytes": 0,
            "free_bytes": 1_780 * GB,
            "min_free_bytes": 64 * MIB,
            "quota_bytes": 0,
            "next_out": [],
        },
        "health": {
            "hub": {"endpoint": "https://huggingface.co", "ok": True, "why": None},
            "proxy": None,
            "rate_limits": [],
            "last_scan": when(11),
        },
        "labels": {},
    }
    return {**value, **more}


def idle() -> Stub:
    """A host on its first day."""
    health = {"hub": {"endpoint": "https://huggingface.co", "ok": None, "why": None}, "proxy": None, "rate_limits": []}
    first = {
        "running": True,
        "pid": 812,
        "started_at": when(95),
        "host": "gpu-7",
        "version": "0.2.0",
        "restart_needed": [],
    }
    return Stub([], status(agent=first, health={**health, "last_scan": when(4)}))


READY = (
    ("BAAI/bge-m3", 2.27), ("google/gemma-3-12b-it", 24.4), ("meta-llama/Llama-3.1-8B-Instruct", 16.1),
    ("mistralai/Mistral-Small-3.2-24B-Instruct-2506", 48.0), ("nomic-ai/nomic-embed-text-v1.5", 0.55),
    ("openai/whisper-large-v3", 3.09), ("Qwen/Qwen3-0.6B", 1.5), ("Qwen/Qwen3-4B-Instruct-2507", 8.06),
    ("Qwen/Qwen3-Embedding-4B", 8.05), ("Qwen/Qwen3-VL-8B-Instruct", 17.5),
    ("sentence-transformers/all-MiniLM-L6-v2", 0.09), ("stabilityai/stable-diffusion-xl-base-1.0", 6.94),
    ("unsloth/gemma-3-27b-it-GGUF:Q4_K_M", 17.4),
)  # fmt: skip
TEAMS = ("search", "chat", "vision", "eval")


def ready_wants() -> list[dict[str, Any]]:
    """Models that are there."""
    sources = ("hub", "hub", "hub", "adopted:ollama", "store", "hub+mirror")
    return [
        want(
            f"{TEAMS[index % 4]}/{model.replace('/', '--').replace(':', '-')}.want",
            model,
            "ready",
            int(gigabytes * GB),
            source=sources[index % len(sources)],
            labels={"team": TEAMS[index % 4]},
        )
        for index, (model, gigabytes) in enumerate(READY)
    ]


def moving_wants() -> list[dict[str, Any]]:
    """Models on their way."""
    return [
        want(
            "chat/gpt-oss-120b.want", "openai/gpt-oss-120b", "downloading", int(65.3 * GB),
            done=0.634, rate=214 * MB, priority=2, labels={"team": "chat", "release": "2026-48"},
        ),
        want(
            "search/Qwen3-30B-A3B.want", "Qwen/Qwen3-30B-A3B-Instruct-2507", "downloading", int(61.1 * GB),
            done=0.214, rate=148 * MB, labels={"team": "search"},
        ),
        want(
            "vision/flux.want", "black-forest-labs/FLUX.1-schnell", "downloading", int(33.9 * GB),
            done=0.077, rate=41 * MB, source="mirror", throttled_by="mirror.example:8443", labels={"team": "vision"},
        ),
        want(
            "eval/phi-4.want", "microsoft/phi-4", "verifying", int(29.3 * GB),
            done=0.9999, labels={"team": "eval"}, priority=7,
        ),
        want("eval/olmo-3.want", "allenai/Olmo-3-7B-Instruct", "resolving", labels={"team": "eval"}, source=None),
    ]  # fmt: skip


def waits(wait: Wait, text: str) -> dict[str, Any]:
    """The keys of a want that waits."""
    return {"waiting": to_json(wait), "waiting_text": text}


def waiting_wants() -> list[dict[str, Any]]:
    """Models that wait, each for another reason."""
    refused = WantdError(Code.HUB_UNREACHABLE, "connecting to mirror.example failed: timed out", "check the network")
    now = datetime.now(UTC)
    tonight, soon, later = now + timedelta(hours=4.2), now + timedelta(seconds=47), now + timedelta(seconds=112)
    holder = Holder(22817, "gpu-8", when(400), 0.31)
    return [
        want(
            "chat/kimi-k2.want", "moonshotai/Kimi-K2-Instruct", "waiting", int(1_030 * GB), labels={"team": "chat"},
            **waits(ForDisk(1_030 * GB, 486 * GB), "Waits for disk space: 1.03 TB needed, 486.0 GB free."),
        ),
        want(
            "chat/mistral-large.want", "mistralai/Mistral-Large-3", "waiting", int(135 * GB),
            done=0.31, labels={"team": "chat"},
            **waits(ForLock(holder), "Waits for process 22817 on gpu-8, which is downloading it (31% done)."),
        ),
        want(
            "eval/nightly.want", "deepseek-ai/DeepSeek-V3.2", "waiting", int(689 * GB),
            priority=8, labels={"team": "eval"},
            **waits(NotBefore(tonight), f"Starts at {tonight:%Y-%m-%d %H:%M:%S} UTC, as the want asks."),
        ),
        want(
            "search/jina.want", "jinaai/jina-embeddings-v4", "waiting", int(7.9 * GB),
            done=0.12, attempt=3, labels={"team": "search"},
            **waits(ForRetry(soon, refused), f"Tries again at {soon:%Y-%m-%d %H:%M:%S} UTC: {refused.message}."),
        ),
        want(
            "vision/sam2.want", "facebook/sam2-hiera-large", "waiting", int(0.9 * GB), labels={"team": "vision"},
            **waits(
                ForSlot(),
                "Waits for a free download slot: as many models are being downloaded as transfer.jobs allows.",
            ),
        ),
        want(
            "vision/wan.want", "Wan-AI/Wan2.2-T2V-A14B", "waiting", int(126 * GB), labels={"team": "vision"},
            **waits(
                ForRateLimit(later),
                f"The server limits the rate of requests; continuing at {later:%Y-%m-%d %H:%M:%S} UTC.",
            ),
        ),
    ]  # fmt: skip


def queued_wants() -> list[dict[str, Any]]:
    names = ("Qwen/Qwen3-32B", "google/gemma-3-4b-it", "ibm-granite/granite-4.0-h-small")
    return [
        want(f"eval/{name.partition('/')[2]}.want", name, "queued", source=None, labels={"team": "eval"})
        for name in names
    ]


def failed(path: str, model: str, code: str, message: str, hint: str, **more: Any) -> dict[str, Any]:
    """A want that failed for good."""
    labels = {"team": path.partition("/")[0]}
    return want(path, model, "failed", source=None, labels=labels, error=error(code, message, hint), **more)


LLAMA = "meta-llama/Llama-4-Maverick-17B-128E-Instruct"


def failed_wants() -> list[dict[str, Any]]:
    """What people have to do something about."""
    return [
        failed(
            "chat/llama-4.want",
            LLAMA,
            "gated",
            f"{LLAMA} is gated, and the token has no access",
            f"request access at https://huggingface.co/{LLAMA}, then touch the want",
        ),
        failed(
            "eval/qwn3.want",
            "qwn3",
            "model_not_supported",
            "qwn3 is not in the catalog",
            "use one of the nearest ids (qwen3, qwen3-4b, qwen2.5), or add it to the catalog",
        ),
        failed(
            "search/gte.want",
            "thenlper/gte-large",
            "checksum_mismatch",
            f"model.safetensors has SHA-256 {sha256('a')[:16]}…, expected {sha256('b')[:16]}…, twice",
            "tell the owner of the repository or of the mirror; nothing of it reached the store",
            total=int(0.67 * GB),
            done=0.94,
            attempt=2,
        ),
        failed(
            "vision/old-sd.want",
            "runwayml/stable-diffusion-v1-5",
            "forbidden_format",
            "runwayml/stable-diffusion-v1-5 has weights as .ckpt and .bin only, which can run code when loaded",
            'use a repository with safetensors, or set policy.formats = [".bin"] if you trust this one',
        ),
    ]


def rates(level: float) -> dict[str, Any]:
    """Five minutes of a line that is not always full."""
    values = []
    for step in range(150):
        wave = 1 + 0.07 * math.sin(step / 3.1) + 0.05 * math.sin(step * 1.7) + 0.03 * math.sin(step * 5.3)
        ramp = min(1.0, step / 14) if step < 60 else 1.0
        dip = 0.42 if 78 <= step <= 88 else 1.0
        values.append(int(level * wave * ramp * dip))
    values[-1] = int(level)
    return {"step_s": 2, "bytes_per_s": values}


NEXT_OUT = [
    {"model": "tiiuae/falcon-180b", "bytes": 359 * GB, "last_used": when(86400 * 212)},
    {"model": "bigscience/bloomz-7b1", "bytes": 14 * GB, "last_used": when(86400 * 96)},
    {"model": "EleutherAI/gpt-j-6b", "bytes": 24 * GB, "last_used": when(86400 * 71)},
]
BUSY_DISK = {
    "used_bytes": 2_914 * GB,
    "reserved_bytes": 104 * GB,
    "free_bytes": 486 * GB,
    "min_free_bytes": 50 * GB,
    "quota_bytes": 3_500 * GB,
    "next_out": NEXT_OUT,
}
LABELS = {"team": ["chat", "eval", "search", "vision"], "release": ["2026-48"]}


def busy() -> Stub:
    """A host at work: some move, some wait, most are there."""
    health = {
        "hub": {"endpoint": "https://huggingface.co", "ok": True, "why": None},
        "proxy": {"endpoint": "https://mirror.example:8443", "ok": True, "why": None},
        "rate_limits": [
            {"host": "huggingface.co", "bucket": "api", "remaining": 871, "reset_s": 184},
            {"host": "huggingface.co", "bucket": "resolvers", "remaining": 4210, "reset_s": 184},
        ],
        "last_scan": when(11),
    }
    wants = [*moving_wants(), *waiting_wants(), *queued_wants(), *ready_wants(), failed_wants()[0]]
    return Stub(
        wants,
        status(connections=38, max_rate=500 * MB, disk=BUSY_DISK, health=health, labels=LABELS, rates=rates(403 * MB)),
    )


def failures() -> Stub:
    """A host with trouble: the proxy away, a setting that waits for a restart, wants that failed."""
    health = {
        "hub": {"endpoint": "https://huggingface.co", "ok": True, "why": None},
        "proxy": {"endpoint": "https://mirror.example:8443", "ok": False, "why": "connecting timed out after 10 s"},
        "rate_limits": [{"host": "huggingface.co", "bucket": "api", "remaining": 0, "reset_s": 112}],
        "last_scan": when(11),
    }
    base = status()["agent"]
    wants = [*failed_wants(), *waiting_wants()[3:4], *waiting_wants()[5:], *ready_wants()]
    return Stub(
        wants,
        status(
            agent={**base, "restart_needed": ["store.dir"]},
            disk={**BUSY_DISK, "quota_bytes": 0, "free_bytes": 41 * GB, "reserved_bytes": 0},
            health=health,
            labels=LABELS,
        ),
    )


def in_detail() -> tuple[Stub, str]:
    """The busy host, and the path of a want with all that is known of it."""
    stub = busy()
    path = "chat/gpt-oss-120b.want"
    shown = dict(stub.wants[path])
    size = int(4.35 * GB)
    files: list[dict[str, Any]] = [
        {"name": name, "size": bytes_, "bytes_done": bytes_, "sha256": sha256(name), "state": "ready", "source": "hub"}
        for name, bytes_ in (
            ("config.json", 1_420),
            ("tokenizer.json", 27_868_174),
            ("model.safetensors.index.json", 54_511),
        )
    ]
    for number in range(15):
        name = f"model-{number + 1:05d}-of-00014.safetensors"
        state = "ready" if number < 8 else "downloading" if number < 12 else "queued"
        ranges = _ranges(number, size) if state == "downloading" else []
        done = size if state == "ready" else sum(end - first for first, end in ranges)
        files.append(
            {
                "name": name, "size": size, "bytes_done": done, "sha256": sha256(name), "state": state,
                "source": "hub", "ranges": ranges,
            }
        )  # fmt: skip
    model = {**shown["models"][0], "files": files}
    stub.details[path] = {**shown, "models": [model]}
    return stub, path


def _ranges(number: int, size: int) -> list[list[int]]:
    front = int(size * (0.83 - 0.21 * (number - 8)))
    ranges = [[0, front]]
    for step in range(1, 5):
        first = front + int(size * 0.045 * step)
        ranges.append([first, min(size, first + int(size * (0.008 + 0.006 * ((step * 7 + number) % 4))))])
    return [span for span in ranges if span[0] < span[1]]
