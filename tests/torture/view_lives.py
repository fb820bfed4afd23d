"""kill -9 at every step of adopting, publishing and showing in the view: lives whose models other programs have.

What is checked beyond `lives`: after each death, everything in the view that a reader can open has right bytes, and a
branch is there only with all of its files; at the end the view is whole; and at no time has anything outside store,
view and spool changed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.harness import wait_until
from tests.torture.caches import content, fill_hub_cache, fill_lmstudio, fill_ollama, state_of
from tests.torture.cases import Case
from tests.torture.lives import HOWS, LIFE_S, Death, Life, sha256, world

STEPS = 385  # calls that change store, view or spool in such a life: 370 to 373 were counted
DEATHS_WALKED = 2
DEATHS_SAMPLED = 6
LIVES_SAMPLED = 2
STEP_ROW = f"SIGKILL at call N of a life that adopts and shows in the view, N = 1 to {STEPS}"
RECOVERY_ROW = "SIGKILL at any call of the recovery from that, the view among them"
AGAIN_ROW = "SIGKILL at a call, where models, view or store have been removed before"


class AdoptingLife(Life):
    """One spool, store and view, and a home in which Ollama, LM Studio and the Hub's tools have what is wanted."""

    wants = {"plain": "qwen3", "twin": '["twin"]', "team/nest": "nest"}
    comes = ("plain", "twin", "team/nest")

    def __init__(self, root: Path, seed: int = 0) -> None:
        super().__init__(root)
        agent = self.agent
        self.view = agent.root / "hub"
        agent.changes.append(self.view)
        agent.set(adopt__link="true" if seed % 3 == 2 else "false")
        fill_hub_cache(root, "torture/nest")
        gguf = content("torture/twin-a", "w-Q4_K_M.gguf")
        if seed % 2:
            fill_lmstudio(root, "torture/twin-a", "w-Q4_K_M.gguf", gguf)
            fill_lmstudio(root, "torture/twin-b", "other-Q4_K_M.gguf", gguf)
        else:
            fill_ollama(root, gguf)
        ours = {agent.store, agent.spool, self.view, agent.log_path, agent.report}
        self.outside = lambda: state_of(root, ours)
        self.before = self.outside()

    def check_dead(self) -> None:
        super().check_dead()
        changed = {path for path, what in self.outside().items() ^ self.before.items()}
        assert not changed, self.explain(f"changed outside store, view and spool: {sorted(changed)}")
        for link in self.view.glob("models--*/snapshots/*/**/*"):
            if link.is_symlink() and link.exists():
                repo = link.relative_to(self.view).parts[0].removeprefix("models--").replace("--", "/")
                assert sha256(link) in world().hashes[repo], self.explain(f"{link} has wrong bytes")
        for ref in self.view.glob("models--*/refs/*"):
            if not ref.name.startswith(".wantd-"):
                folder = ref.parent.parent / "snapshots" / ref.read_text()
                assert any(path.exists() for path in folder.rglob("*") if path.is_symlink()), self.explain(f"{ref}")

    def live(self) -> None:
        """As always, and the view has to come to its end as well before the agent is stopped."""
        agent = self.agent
        agent.spawn({})
        try:
            wait_until(lambda: agent.settled() and not self.missing(), "everything is in the view", LIFE_S)
        except AssertionError as error:
            raise AssertionError(self.explain(f"{error}; not in the view: {self.missing()}")) from None
        finally:
            agent.stop()
        super().live()
        assert not self.missing(), self.explain(f"not in the view: {self.missing()}")

    def missing(self) -> list[str]:
        """Published files that the view does not show as the same file, and temporary files in it."""
        found = [str(path) for path in self.view.rglob("models--*/**/.wantd-*.tmp")]
        for name in ("qwen3", "twin", "nest"):
            directory = self.agent.store / name
            try:
                record = json.loads((directory / ".wantd.json").read_bytes())
                repo = self.view / f"models--{record['repo'].replace('/', '--')}"
                if (repo / "refs" / "main").read_text() != record["commit"]:
                    found.append(f"{repo}/refs/main")
                shown = repo / "snapshots" / record["commit"]
                found += [
                    str(shown / file["name"])
                    for file in record["files"]
                    if not os.path.samefile(shown / file["name"], directory / file["name"])
                ]
            except (FileNotFoundError, json.JSONDecodeError) as error:
                found.append(f"{name}: {error}")
        return found

    def check_done(self) -> None:
        super().check_done()
        sources = {
            file["source"]
            for record in self.agent.store.glob("*/.wantd.json")
            for file in json.loads(record.read_bytes())["files"]
            if file["name"].endswith((".gguf", ".safetensors"))
        }
        assert sources <= {"adopted:hub", "adopted:ollama", "adopted:lmstudio", "store", "partial", "hub"}, sources

    def begin_again(self, seed: int = 0) -> None:
        """Somebody removes the models, the view, or the whole store, while no agent runs."""
        what = seed % 3
        if what == 0:
            super().begin_again()
        elif what == 1:
            shutil.rmtree(self.view, ignore_errors=True)
            super().begin_again()
        else:
            notes = (self.agent.store / "nest" / "notes.txt").read_text()
            shutil.rmtree(self.agent.store, ignore_errors=True)
            (self.agent.store / "nest").mkdir(parents=True)
            (self.agent.store / "nest" / "notes.txt").write_text(notes)


def steps_of_a_whole_life(root: Path) -> int:
    """How many calls there are when nothing goes wrong."""
    life = AdoptingLife(root)
    life.agent.spawn(life.agent.steps_env(Death(0)))
    try:
        wait_until(lambda: life.agent.settled() and not life.missing(), "everything comes to its end", LIFE_S)
        return int(life.agent.report.read_text().split("\n")[0])
    finally:
        life.agent.kill()


def walked(step: int, seed: int) -> Case:
    """Dies at one step of a whole life, then at any step of the recovery, then lives."""

    def run(root: Path) -> None:
        chance = random.Random(seed)
        life = AdoptingLife(root, seed)
        life.die(Death(step, HOWS[step % len(HOWS)]))
        for _ in range(DEATHS_WALKED - 1):
            life.die(Death(chance.randint(1, STEPS), chance.choice(HOWS)))
        life.live()

    faults = {STEP_ROW: 1, RECOVERY_ROW: DEATHS_WALKED - 1}
    return Case(f"adoption call {step}", run, brief=False, needs=("cc",), faults=faults)


def sampled(seed: int) -> Case:
    """The short form: deaths at steps spread over a whole life, in one life."""

    def run(root: Path) -> None:
        life = AdoptingLife(root, seed)
        for number in range(DEATHS_SAMPLED):
            life.begin_again(number)
            step = STEPS * (number * LIVES_SAMPLED + seed) // (DEATHS_SAMPLED * LIVES_SAMPLED) + 1
            life.die(Death(step, HOWS[(number + seed) % len(HOWS)]))
        life.live()

    return Case(f"adoption sample {seed}", run, needs=("cc",), faults={AGAIN_ROW: DEATHS_SAMPLED})


def cases(kills: int) -> Iterator[Case]:
    """A quarter of the kills of the long walk, spread evenly over the steps."""
    yield from (sampled(seed) for seed in range(LIVES_SAMPLED))
    lives = min(STEPS, max(kills // 4 // DEATHS_WALKED, 1))
    yield from (walked(STEPS * number // lives + 1, number) for number in range(lives))
