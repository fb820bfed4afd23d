"""`kill -9` at random moments of one download, the agent started again each time: what is sent twice, is it right."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass

from bench import tools
from bench.cases import Scale, one_file
from bench.measure import CommandError
from bench.servers import Served
from bench.tools import Agent, Place

END_S = 300.0
LOOK_S = 0.002
MORE_MAX = 0.05  # of the file's bytes may be sent twice, over all kills


@dataclass(frozen=True)
class Killed:
    """What came of it: kills, bytes of the file, bytes that the clients' kernels took."""

    kills: int
    size: int
    sent: int
    right: bool

    @property
    def more(self) -> float:
        """Bytes sent beyond the file's, as a share of it."""
        return self.sent / self.size - 1


def kill_again_and_again(scale: Scale, directory: str, served: Served, seed: int) -> Killed:
    """Moments are spread evenly at random over the bytes of the download. `served` has to be capped, so that there
    are that many moments, and is counted by the relay: what TCP acknowledged, not what nginx gave to the kernel."""
    repo = one_file(scale)
    ((name, size),) = repo.files
    relay = served.relay
    if relay is None:
        raise ValueError("what is killed again and again has to be capped and counted")
    chance = random.Random(seed)
    agent = Agent(Place(directory, served))
    os.makedirs(agent.spool, exist_ok=True)
    progress = agent.drop("one", {"model": repo.id})
    kills = 0
    for moment in sorted(chance.random() for _ in range(scale.kills)):
        with agent:
            # Seen from the server; what was sent twice so far shifts the moment, and nothing else.
            while relay.delivered_bytes < moment * size and not _is_there(progress):
                time.sleep(LOOK_S)
            time.sleep(chance.random() * 0.02)
            kills += not _is_there(progress)
            agent.kill()
    with agent:
        deadline = time.monotonic() + END_S
        while not _is_there(progress):
            if time.monotonic() > deadline:
                raise CommandError(f"not ready within {END_S:g} s: {tools.read_answer(progress)}")
            time.sleep(0.01)
    while not relay.is_quiet:
        time.sleep(0.01)
    path = f"{tools.published(progress)}/{name}"
    return Killed(kills, size, relay.delivered_bytes, tools.sha256_of(path) == tools.expected(repo, name, served))


def _is_there(progress: str) -> bool:
    state = tools.read_answer(progress).get("state")
    if state == "failed":
        raise CommandError(f"failed: {tools.read_answer(progress)}")
    return state == "ready"
