"""`wantd demo`: everything on this machine, without a network: a small Hub, an agent, a want, the bar, the path."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from agent.config import process_environment
from agent.errors import Exit

MODEL = "qwen3"
GGUF_BYTES = 96_000_000
MAX_RATE = "64000000"  # bytes/s: without a limit loopback is too fast to see the bar move

EXAMPLES = """\
examples:
  wantd demo
  wantd demo --dir /tmp/wantd-demo
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to run it."""
    parser.add_argument("--dir", metavar="DIR", help="directory for the demo's spool and store (emptied first)")


def call(arguments: argparse.Namespace) -> int:
    """Run the demo. Returns 0 when the file is there and its hash is right."""
    from agent.embedded_hub.demo import FILE, REPO, demo_hub

    environ = process_environment()
    cache = environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    root = os.path.abspath(arguments.dir or f"{cache}/wantd/demo")
    for name in ("spool", "models"):
        shutil.rmtree(f"{root}/{name}", ignore_errors=True)
    os.makedirs(f"{root}/spool")
    with demo_hub(GGUF_BYTES, root) as hub:
        settings = {
            key: value
            for key, value in environ.items()
            if not key.startswith(("WANTD_", "HF_", "LLMLB_")) and not key.lower().endswith("_proxy")
        }
        settings |= {
            "WANTD_SPOOL__DIR": f"{root}/spool",
            "WANTD_STORE__DIR": f"{root}/models",
            "WANTD_TRANSFER__MAX_RATE": MAX_RATE,
            "HF_ENDPOINT": hub.endpoint,
        }
        _say(f"1. embedded Hub listening at {hub.endpoint}")
        with _agent(settings, f"{root}/agent.log"):
            _say(f"2. agent running, watching {root}/spool (log: {root}/agent.log)")
            _say(f"3. request: echo {MODEL} > {root}/spool/{MODEL}.want")
            command = [sys.executable, "-m", "agent", "get", MODEL, "--timeout", "120"]
            got = subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True, check=False)
            path = got.stdout.strip()
        if got.returncode or not path:
            _say(f"the download failed (exit code {got.returncode}); see {root}/agent.log")
            return Exit.FAILURE
        sha256 = _sha256(path)
        if sha256 != hub.repos[REPO].main[FILE].sha256:
            _say(f"{path} differs from the file on the Hub")
            return Exit.FAILURE
    _say(f"4. ready and verified: {os.path.getsize(path)} bytes, SHA-256 {sha256}")
    print(path)
    return Exit.OK


@contextlib.contextmanager
def _agent(environ: dict[str, str], log: str) -> Iterator[None]:
    with open(log, "wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "agent", "run"], env=environ, stderr=output)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
