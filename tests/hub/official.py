"""The official client, huggingface_hub, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Official = Callable[..., Any]
PRELUDE = "import json, sys\nimport huggingface_hub as hub\nargument = json.loads(sys.argv[1])\nresult = None\n"


def official_environment(endpoint: str, home: Path) -> dict[str, str]:
    """Its environment: that Hub, a home of its own, quiet."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return kept | {
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }


def run_official(environment: Mapping[str, str], code: str, argument: Any = None) -> Any:
    """Run code that has `huggingface_hub` as `hub` and `argument`; returns what the code left in `result`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}{code}\nprint('RESULT' + json.dumps(result))\n", json.dumps(argument)],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.rpartition("RESULT")[2])


def on_disk(directory: str) -> dict[str, bytes]:
    """The files that the client wrote, by path."""
    found = {}
    for root, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if name != ".cache"]
        for name in names:
            path = Path(root, name)
            found[str(path.relative_to(directory))] = path.read_bytes()
    return found
