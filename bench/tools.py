"""How ours and each peer bring the files of one case, every one with the settings that serve it best.

All are whole commands, from the start of the process to its end. Ours is `wantd get`, with an agent running, as one
does; the agent's processor time and memory are counted with the command's. Only the tiny case is measured from the
want's rename to `ready`, as the contract has it.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench import measure
from bench.cases import Case
from bench.data import Repo
from bench.measure import CommandError, Usage
from bench.servers import Served

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
START_S = 30.0
STOP_S = 10.0
READY_S = 60.0
LOOK_S = 0.0005
READ_BYTES = 1024 * 1024

# Variables that would steer one side and not the other.
_STEERING = ("WANTD_", "HF_", "LLMLB_", "XLLM_", "LLM_")
_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True)
class Place:
    """Where one run happens: an empty directory of its own, and what serves."""

    directory: str
    served: Served

    def environ(self, **more: str) -> dict[str, str]:
        """This process's environment without what steers, and with the bench's certificate."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(_STEERING) and name not in _TRUST and not name.lower().endswith("_proxy")
        }
        trust = {"SSL_CERT_FILE": self.served.certificate} if self.served.certificate else {}
        return {**kept, "HOME": self.directory, **trust, **more}

    @property
    def log(self) -> str:
        return f"{self.directory}/command.log"


# A run gives what it cost, and the directory in which the repository's files lie then.
Run = Callable[[Case, Repo, Place], tuple[Usage, str]]


class Agent:
    """A running `wantd run` with spool and store below the place's directory; all settings but the allow list are
    the defaults."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.spool = f"{place.directory}/spool"
        self.store = f"{place.directory}/models"
        self._log = f"{place.directory}/agent.log"
        self.environ = place.environ(
            PYTHONPATH=ROOT,
            HF_ENDPOINT=place.served.endpoint,
            WANTD_SPOOL__DIR=self.spool,
            WANTD_STORE__DIR=self.store,
            WANTD_POLICY__ALLOW="any",
        )

    def __enter__(self) -> Agent:
        os.makedirs(self.spool, exist_ok=True)
        served = self._text().count(" serves ")
        with open(self._log, "ab") as log:
            command = [sys.executable, "-m", "agent", "run"]
            self._process = subprocess.Popen(
                command, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._place.directory
            )
        deadline = time.monotonic() + START_S
        while self._text().count(" serves ") == served:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise CommandError(f"the agent did not start:\n{self._text()[-2000:]}")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def drop(self, name: str, want: dict[str, object]) -> str:
        """Write a want and rename it into the spool; gives the path of the answer."""
        temporary = f"{self.spool}/.{name}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(want, file)
        os.rename(temporary, f"{self.spool}/{name}.want")
        return f"{self.spool}/{name}.progress"

    def _text(self) -> str:
        try:
            with open(self._log, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""


def wantd(case: Case, repo: Repo, place: Place) -> tuple[Usage, str]:
    """Ours: verified, synced and published. `wantd get` beside a running agent, or a want dropped by rename."""
    with Agent(place) as agent:
        cpu = measure.cpu_seconds(agent.pid)
        if case.from_rename:
            usage = _from_rename(agent, repo)
        else:
            command = [sys.executable, "-m", "agent", "get", repo.id, *(["--files", "*"] if case.everything else [])]
            usage = measure.run(command, agent.environ, place.directory, place.log)
        rss = max(usage.rss_bytes, measure.peak_bytes(agent.pid))
        usage = replace(usage, cpu_s=usage.cpu_s + measure.cpu_seconds(agent.pid) - cpu, rss_bytes=rss)
        (progress,) = glob.glob(f"{agent.spool}/*.progress")
        return usage, published(progress)


def _from_rename(agent: Agent, repo: Repo) -> Usage:
    """From the want's rename to the moment at which a reader sees `ready`."""
    began = time.perf_counter()
    progress = agent.drop("tiny", {"model": repo.id})
    while (answer := read_answer(progress)).get("state") != "ready":
        if answer.get("state") == "failed" or time.perf_counter() - began > READY_S:
            raise CommandError(f"not ready: {answer}")
        time.sleep(LOOK_S)
    return Usage(time.perf_counter() - began, 0.0, 0)


def read_answer(progress: str) -> dict[str, object]:
    """A progress file; empty while there is none."""
    try:
        with open(progress, "rb") as file:
            answer: dict[str, object] = json.loads(file.read())
    except FileNotFoundError:
        return {}
    return answer


def published(progress: str) -> str:
    """The directory of the (one) model that a progress file tells of."""
    with open(progress, encoding="utf-8") as file:
        path: str = json.load(file)["models"][0]["path"]
    return path if os.path.isdir(path) else os.path.dirname(path)


def hf(path: str, workers: int) -> Run:
    """`hf download` over plain HTTP: Xet off, for there is none here; no bars, no look for updates, no telemetry."""

    def run(_: Case, repo: Repo, place: Place) -> tuple[Usage, str]:
        switches = ("XET", "TELEMETRY", "UPDATE_CHECK", "PROGRESS_BARS")
        environ = place.environ(
            HF_HOME=f"{place.directory}/hf",
            HF_ENDPOINT=place.served.endpoint,
            **{f"HF_HUB_DISABLE_{switch}": "1" for switch in switches},
        )
        command = [path, "download", repo.id, "--max-workers", str(workers), "--quiet"]
        usage = measure.run(command, environ, place.directory, place.log)
        (snapshot,) = glob.glob(f"{place.directory}/hf/hub/models--*/snapshots/*")
        return usage, snapshot

    return run


def aria2(path: str) -> Run:
    """`aria2c` with 16 connections and the SHA-256 checked, straight from nginx, without the Hub's redirect."""

    def run(_: Case, repo: Repo, place: Place) -> tuple[Usage, str]:
        ((name, _size),) = repo.files
        command = [path, "--no-conf", "-q", "-x16", "-s16", "-k1M", "--file-allocation=none", "--check-integrity=false"]
        command += [f"--checksum=sha-256={expected(repo, name, place.served)}", "-d", place.directory, "-o", name]
        if place.served.certificate:
            command += [f"--ca-certificate={place.served.certificate}"]
        command += [url_of(repo, name, place.served)]
        return measure.run(command, place.environ(), place.directory, place.log), place.directory

    return run


def curl(path: str) -> Run:
    """`curl` to a file, straight from nginx; it verifies nothing."""

    def run(_: Case, repo: Repo, place: Place) -> tuple[Usage, str]:
        ((name, _size),) = repo.files
        command = [path, "-q", "-sSfL", "-o", f"{place.directory}/{name}"]
        if place.served.certificate:
            command += ["--cacert", place.served.certificate]
        command += [url_of(repo, name, place.served)]
        return measure.run(command, place.environ(), place.directory, place.log), place.directory

    return run


def url_of(repo: Repo, name: str, served: Served) -> str:
    """Where the file's bytes are."""
    return f"{served.base}/{repo.id}/{name}" if served.base else f"{served.endpoint}/{repo.id}/resolve/main/{name}"


def expected(repo: Repo, name: str, served: Served) -> str:
    """The file's SHA-256, as the Hub has it."""
    sha256: str = served.hub.repos()[repo.id]["files"][name]["sha256"]
    return sha256


def check(repo: Repo, directory: str, served: Served, *, hashes: bool) -> None:
    """Every file is there with its size, and its hash. Raises CommandError."""
    for name, size in repo.files:
        path = f"{directory}/{name}"
        found = os.path.getsize(path) if os.path.exists(path) else None
        if found != size:
            raise CommandError(f"{path} has {found} bytes, expected {size}")
        if hashes and sha256_of(path) != expected(repo, name, served):
            raise CommandError(f"{path} has another hash than the Hub's file")


def sha256_of(path: str) -> str:
    """The file's SHA-256, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(directory: str, *, settle: bool) -> None:
    """Remove what a run left; with `settle` wait until the disk is idle again: nobody pays for the one before."""
    shutil.rmtree(directory, ignore_errors=True)
    if settle:
        os.sync()
