"""kill -9 at every step and at any moment: lives of an agent, each with some deaths in it, and what must hold then.

A life is one spool and one store. The agent is started and dies, again and again; the last start is left alone and
has to bring everything to its end. What is checked after each death is what any reader could see at that moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.harness import AgentProcess, wait_until
from tests.hub.process import HubProcess
from tests.torture.cases import Case

GGUF = (
    1_200_000  # bytes: over SMALL_MAX of the transfer engine, so that it goes by granules and a journal; five of them
)
SMALL = 150_000  # bytes
HOWS = ("before", "after", "torn")
LIFE_S = 60.0  # a start that neither dies nor comes to its end within this has hung
DEATHS_WALKED = 2  # in a life of the walk: one at the step, and one at any step of the recovery from it
DEATHS_RANDOM = 5
DEATHS_SAMPLED = 8
LIVES_SAMPLED = 5
MOMENTS_S = (0.3, 2.5)  # from the first import to some time after everything is done
STEPS = 475  # calls that change the disk in a whole life: 451 to 460 were counted, and steps past the end end it idle
STEP_ROW = f"SIGKILL at call N of a life from nothing, N = 1 to {STEPS}: before, after, or in the middle of it"
RECOVERY_ROW = "SIGKILL at any call of the recovery from that"
AGAIN_ROW = "SIGKILL at a call, where models have been removed before"
FAR_ROW = "SIGKILL at a call, a model's directory being on another file system"
MOMENT_ROW = "SIGKILL at any moment"
# Letters to the agent that stay in force for the whole life, by path below the spool.
WANTS = {
    "plain": "qwen3",
    "twin": '{"models": ["twin", "gpt-oss-20b"], "labels": {"who": "torture"}}',
    "team/nest": "nest",
    "bad": '{"modle": "qwen3"}',
    "later": '{"model": "never", "not_before": "2999-01-01T00:00:00Z"}',
}
READY = ("plain", "twin", "team/nest")


@dataclass(frozen=True)
class Death:
    """How a start ends: at a step of the disk, or at a moment, in seconds after the spawn."""

    step: int = 0
    how: str = "before"
    moment_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.how} call {self.step}" if self.step else f"after {self.moment_s:.3f} s"


class World:
    """A Hub with small models of every shape, and the catalog that names them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.hub = HubProcess("--many", "1", "--size", str(SMALL), "--gguf-size", str(GGUF))
        self.hub.start()
        gguf = random.Random(7).randbytes(GGUF)
        self.hub.commit("torture/twin-a", {"w-Q4_K_M.gguf": gguf, "README.md": b"a"})
        self.hub.commit("torture/twin-b", {"other-Q4_K_M.gguf": gguf, "README.md": b"b"})
        nested = random.Random(8)
        self.hub.commit(
            "torture/nest",
            {f"a/b{n}/f{n}.json": nested.randbytes(300) for n in range(3)}
            | {"model.safetensors": nested.randbytes(SMALL), "config.json": b"{}", "tokenizer.json": b"{}"},
        )
        entries = [
            {"id": "qwen3", "repo": "torture/twin-a", "recommended_filename": "w-Q4_K_M.gguf"},
            {"id": "twin", "repo": "torture/twin-b", "recommended_filename": "other-Q4_K_M.gguf"},
            {"id": "gpt-oss-20b", "repo": "openai/gpt-oss-20b"},
            {"id": "nest", "repo": "torture/nest", "files": ["*.json", "*.safetensors"]},
            {"id": "never", "repo": "torture/nest"},
        ]
        self.catalog = root / "catalog.json"
        self.catalog.write_text(json.dumps(entries))
        self.hashes: dict[str, set[str]] = {}  # of the files of each repository, all names
        for repo, known in self.hub.repos().items():
            self.hashes[repo] = {file["sha256"] for file in known["files"].values()}

    def close(self) -> None:
        self.hub.stop()


@cache
def world() -> World:
    """One for the whole process; its Hub ends with it."""
    return World(Path(tempfile.mkdtemp(prefix="wantd-torture-")))


@cache
def library(source: str) -> str:
    """A library for LD_PRELOAD, built once from a file beside this one."""
    built = Path(tempfile.mkdtemp(prefix="wantd-torture-")) / source.replace(".c", ".so")
    path = Path(__file__).with_name(source)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(built), str(path), "-ldl"], check=True)
    return str(built)


class Victim(AgentProcess):
    """An agent that may die at any moment, its start among them."""

    def __init__(
        self,
        root: Path,
        store: Path | None = None,
        wants: Mapping[str, str] = WANTS,
        comes: Collection[str] = READY,
    ) -> None:
        here = world()
        self.wants, self.comes = wants, comes
        super().__init__(root, here.hub.endpoint, store=store, catalog__path=here.catalog, transfer__connections=4,
                         store__min_free_bytes=0, transfer__retry_min_s=0.1, transfer__retry_max_s=0.5,
                         scheduler__reap_s=2, scheduler__rescan_s=2)  # fmt: skip
        self.report = root / "steps"
        self.changes = [self.spool, self.store]  # where a call counts as a step

    def spawn(self, more: Mapping[str, str]) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run"],
                env={**self.environ, **more},
                stdout=log,
                stderr=log,
                cwd=self.root,
            )

    def steps_env(self, death: Death) -> dict[str, str]:
        return {
            "LD_PRELOAD": library("crash.c"),
            "CRASH_AT": str(death.step),
            "CRASH_HOW": death.how,
            "CRASH_ROOTS": ":".join(map(str, self.changes)),
            "CRASH_REPORT": str(self.report),
        }

    def settled(self) -> bool:
        """Whether everything has come to its end."""
        for name in self.wants:
            answer = self.progress(name)
            wanted = "ready" if name in self.comes else "failed" if name == "bad" else "waiting"
            if not answer or answer["state"] != wanted:
                return False
            # An answer of an earlier life may stand where it is still true.
            paths = [Path(model["path"]) for model in answer["models"] if wanted == "ready"]
            directories = [path if path.is_dir() else path.parent for path in paths]
            if not all((directory / ".wantd.json").exists() for directory in directories):
                return False
        return True


class Life:
    """One spool and store. `die` kills an agent in them, `live` lets one come to its end; both check what must hold."""

    wants: Mapping[str, str] = WANTS
    comes: Collection[str] = READY

    def __init__(self, root: Path, store: Path | None = None) -> None:
        self.agent = Victim(root, store, self.wants, self.comes)
        self.told: list[str] = []
        for name, content in self.wants.items():
            self.agent.drop(name, content)
        # Where something lies already the model cannot come in one rename: the files go in one by one.
        (self.agent.store / "nest").mkdir(parents=True)
        (self.agent.store / "nest" / "notes.txt").write_text("somebody's own")

    def die(self, death: Death) -> bool:
        """Start, and die. False when everything was done before the step was reached; then it is killed idle."""
        agent = self.agent
        agent.spawn(agent.steps_env(death) if death.step else {})
        process = agent.process
        assert process
        reached = True
        if death.step:
            wait_until(lambda: process.poll() is not None or agent.settled(), f"death {death}", LIFE_S)
            reached = process.poll() is not None
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(death.moment_s)
        if process.poll() is None:
            agent.kill()
        where = agent.report.read_text().partition("\n")[2].strip() if death.step else ""
        self.told.append(f"{death}: {where}")
        assert process.returncode == -signal.SIGKILL, self.explain(f"it ended by itself with {process.returncode}")
        self.check_dead()
        return reached

    def begin_again(self) -> None:
        """Somebody removes the models while no agent runs: there is something to do again."""
        for name in ("qwen3", "twin", "gpt-oss-20b", ".partial"):
            shutil.rmtree(self.agent.store / name, ignore_errors=True)
        for path in (self.agent.store / "nest").iterdir():
            if path.name != "notes.txt":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def live(self) -> None:
        """Start, and come to the end of everything."""
        agent = self.agent
        agent.spawn({})
        process = agent.process
        assert process
        try:
            wait_until(lambda: process.poll() is not None or agent.settled(), "everything comes to its end", LIFE_S)
            assert process.poll() is None, "the agent ended"
            wait_until(lambda: not self.leftovers(), "what the deaths left is cleared", LIFE_S)
        except AssertionError as error:
            raise AssertionError(self.explain(f"{error}; left over: {self.leftovers()}")) from None
        finally:
            agent.stop()
        self.check_dead()
        self.check_done()

    def check_dead(self) -> None:
        """What holds at any moment at all: wants untouched, answers whole, nothing published that is not right."""
        for name, content in self.wants.items():
            assert (self.agent.spool / f"{name}.want").read_text() == content, self.explain(f"the want {name} is lost")
        for answer in self.agent.spool.rglob("*.progress"):
            try:
                assert json.loads(answer.read_bytes())["schema"] == 1
            except (ValueError, KeyError):
                raise AssertionError(self.explain(f"{answer.name} is torn: {answer.read_bytes()[:200]!r}")) from None
        for record_path in self.agent.store.rglob(".wantd.json"):
            if any(folder.startswith(".") for folder in record_path.relative_to(self.agent.store).parts[:-1]):
                continue  # a stage: no reader takes what lies under a dot for a model
            self.check_published(record_path)

    def check_published(self, record_path: Path) -> None:
        record = json.loads(record_path.read_bytes())
        assert record["files"], self.explain(f"{record_path} has no files")
        for file in record["files"]:
            path = record_path.parent / file["name"]
            assert path.exists(), self.explain(f"{path} is published and not there")
            found = sha256(path)
            assert found == file["sha256"], self.explain(f"{path} is published and wrong")
            assert found in world().hashes[record["repo"]], self.explain(f"{path} is not of {record['repo']}")
            assert path.stat().st_mode & 0o777 == 0o644, self.explain(f"{path} has mode {path.stat().st_mode:o}")
        if record["opens"]:
            assert os.path.samefile(record_path.parent / record["opens"], record_path.parent / "model.gguf")

    def check_done(self) -> None:
        """At the end: nothing of anybody else's is touched, and no byte is used that nobody wants."""
        assert (self.agent.store / "nest" / "notes.txt").read_text() == "somebody's own", self.explain("notes.txt")
        for name in self.comes:
            answer = self.agent.progress(name)
            assert answer, name
            for model in answer["models"]:
                assert os.path.exists(model["path"]), self.explain(f"{model['path']} of {name}")

    def leftovers(self) -> list[str]:
        """Files of the agent that nobody needs once everything is done. What waits for its age is made old."""
        store, spool = self.agent.store, self.agent.spool
        hour_ago = time.time() - 3600
        temps = list(spool.rglob(".wantd-*.tmp"))
        for folder in (store / ".partial", store / ".locks"):  # not rglob: folders go away under it
            temps += folder.glob(".wantd-*.tmp")
        for temp in temps:
            with contextlib.suppress(FileNotFoundError):
                os.utime(temp, (hour_ago, hour_ago))
        found = [str(path) for path in spool.rglob(".wantd-*.tmp")]
        for folder, folders, files in os.walk(store):  # not rglob: folders go away under it
            inside = folder == str(store / ".partial")
            ours = (".lock", ".tmp") if folder == str(store / ".locks") else ()
            names = [name for name in [*folders, *files] if inside or name.endswith(ours)]
            found += [f"{folder}/{name}" for name in names if not is_held(f"{folder}/{name}")]
            found += [f"{folder}/{name}" for name in folders if name.startswith(".wantd-stage")]
        return found

    def explain(self, what: str) -> str:
        log = self.agent.log()[-3000:]
        return f"{what}\n{self.agent.root}: deaths were\n  " + "\n  ".join(self.told) + f"\nthe log ends:\n{log}"


def is_held(path: str) -> bool:
    """Whether a live process has locked the file."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def steps_of_a_whole_life(root: Path) -> int:
    """How many calls change the disk when nothing goes wrong."""
    life = Life(root)
    agent = life.agent
    agent.spawn(agent.steps_env(Death(0)))
    try:
        wait_until(agent.settled, "everything comes to its end", LIFE_S)
        return int(agent.report.read_text().split("\n")[0])
    finally:
        agent.kill()


# -- cases ----------------------------------------------------------------------------------------------------------


def walked(step: int, seed: int) -> Case:
    """Dies at one step of a whole life, then at any step of the recovery, then lives."""

    def run(root: Path) -> None:
        chance = random.Random(seed)
        life = Life(root)
        life.die(Death(step, HOWS[step % len(HOWS)]))
        for _ in range(DEATHS_WALKED - 1):
            life.die(Death(chance.randint(1, STEPS), chance.choice(HOWS)))
        life.live()

    faults = {STEP_ROW: 1, RECOVERY_ROW: DEATHS_WALKED - 1}
    return Case(f"call {step}", run, brief=False, needs=("cc",), faults=faults)


def random_moments(seed: int, *, brief: bool = False) -> Case:
    """Dies at any moment, again and again, then lives."""

    def run(root: Path) -> None:
        chance = random.Random(seed)
        life = Life(root)
        for _ in range(DEATHS_RANDOM):
            if chance.random() < 0.5:
                life.begin_again()
            life.die(Death(moment_s=chance.uniform(*MOMENTS_S)))
        life.live()

    return Case(f"moments {seed}", run, brief=brief, faults={MOMENT_ROW: DEATHS_RANDOM})


def sampled(seed: int) -> Case:
    """The short form: deaths at steps spread over a whole life, in one life."""

    def run(root: Path) -> None:
        life = Life(root)
        for number in range(DEATHS_SAMPLED):
            life.begin_again()
            step = STEPS * (number * LIVES_SAMPLED + seed) // (DEATHS_SAMPLED * LIVES_SAMPLED) + 1
            life.die(Death(step, HOWS[(number + seed) % len(HOWS)]))
        life.live()

    return Case(f"sample {seed}", run, needs=("cc",), faults={AGAIN_ROW: DEATHS_SAMPLED})


def across_file_systems(seed: int) -> Case:
    """As `walked`, where one model lies on another file system: its files are copied, not renamed."""

    def run(root: Path) -> None:
        chance = random.Random(seed)
        far = root / "models" / "qwen3"
        far.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "wantd-torture", str(far)], check=True)
        try:
            life = Life(root)
            for _ in range(DEATHS_RANDOM):
                life.die(Death(chance.randint(STEPS // 3, STEPS), chance.choice(HOWS)))
            life.live()
        finally:
            subprocess.run(["umount", "--lazy", str(far)], check=True)

    faults = {FAR_ROW: DEATHS_RANDOM}
    return Case(f"two file systems {seed}", run, brief=False, needs=("cc", "root"), faults=faults)


def at_steps(kills: int) -> Iterator[Case]:
    """Every step of a whole life, as many as the number of kills leaves room for, spread evenly."""
    yield from (sampled(seed) for seed in range(LIVES_SAMPLED))
    lives = min(STEPS, max(kills * 4 // 5 // DEATHS_WALKED, 1))
    yield from (walked(STEPS * number // lives + 1, number) for number in range(lives))
    yield from (across_file_systems(seed) for seed in range(max(kills // 100, 1)))


def at_moments(kills: int) -> Iterator[Case]:
    """Any moment: a fifth of all kills."""
    yield from (random_moments(seed, brief=seed < 2) for seed in range(max(kills // 5 // DEATHS_RANDOM, 2)))
