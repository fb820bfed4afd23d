"""Runs cases: ours and theirs in turn, each from an empty directory, the order changing from round to round."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from bench import kill, tools
from bench.cases import Case, Face, Scale, cases, one_file
from bench.data import Repo
from bench.install import Peers
from bench.measure import Usage
from bench.servers import Nginx, Served, serve
from bench.tools import Place, Run

OURS = "wantd"
# The default; of 4, 8, 16 and 32 workers none was reliably quicker for 2,000 small files on two cores.
HF_WORKERS = 8


@dataclass
class Measured:
    """A case's runs, by tool."""

    case: Case
    usages: dict[str, list[Usage]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def toolbox(peers: Peers) -> dict[str, Run]:
    """What there is to run, by name."""
    box: dict[str, Run] = {OURS: tools.wantd}
    if peers.hf:
        box["hf"] = tools.hf(peers.hf, HF_WORKERS)
    if peers.aria2:
        box["aria2"] = tools.aria2(peers.aria2)
    if peers.curl:
        box["curl"] = tools.curl(peers.curl)
    return box


@dataclass
class Bench:
    """Where files lie and what there is to run. `say` is told what happens."""

    scale: Scale
    www: str
    work: str
    nginx: Nginx | None
    box: Mapping[str, Run]
    say: Callable[[str], None]

    def run(self, case: Case, rounds: int) -> Measured:
        """Measure one case."""
        repos = case.repos[: rounds * case.times] if len(case.repos) > 1 else case.repos
        for repo in repos:
            repo.make(self.www)
        names = [OURS, *(rival.tool for rival in case.rivals)]
        measured = Measured(case, left_out=[name for name in names if name not in self.box])
        present = [name for name in names if name in self.box]
        with serve(case.face, repos, self.www, self.nginx) as served:
            for number in range(rounds * case.times):
                repo = repos[number % len(repos)]
                turn = number % len(present)
                for name in present[turn:] + present[:turn]:
                    usage = self._once(case, name, repo, served)
                    measured.usages.setdefault(name, []).append(usage)
                    peak = usage.rss_bytes / 1e6
                    self.say(f"  {name:6} {usage.wall_s:8.3f} s  cpu {usage.cpu_s:6.2f} s  {peak:6.1f} MB")
        return measured

    def _once(self, case: Case, name: str, repo: Repo, served: Served) -> Usage:
        directory = f"{self.work}/run"
        os.makedirs(directory)
        try:
            if self.nginx:
                self.nginx.forget()
            usage, found = self.box[name](case, repo, Place(directory, served))
            tools.check(repo, found, served, hashes=not self.scale.is_full)
            sent = self.nginx.sent_bytes(repo.bytes_total) if self.nginx else 0
            return replace(usage, sent_bytes=sent)
        finally:
            tools.remove(directory, settle=self.scale.is_full)

    def kill(self, seed: int) -> kill.Killed:
        """The case of the killed agent."""
        repo = one_file(self.scale)
        repo.make(self.www)
        directory = f"{self.work}/run"
        os.makedirs(directory)
        try:
            # At 40 MB/s times 16 two cores are busy to the brim, and what counts is what lay in the kernel's buffers.
            with serve(Face.SLOW, [repo], self.www, self.nginx) as served:
                return kill.kill_again_and_again(self.scale, directory, served, seed)
        finally:
            tools.remove(directory, settle=self.scale.is_full)

    def drop_files(self, wanted: list[Case]) -> None:
        """Remove files that none of the wanted cases needs."""
        kept = {repo.id for case in wanted for repo in case.repos}
        for case in cases(self.scale):
            for repo in case.repos:
                if repo.id not in kept:
                    repo.remove(self.www)
