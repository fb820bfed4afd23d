"""The cases: which files, how they are served, against whom, and the ratio to hold (bench/RESULTS.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bench.data import Repo

MIB = 1024**2
GIB = 1024**3


class Face(Enum):
    """How nginx serves the bytes."""

    PLAIN = "http"
    TLS = "https"
    CAPPED = "http, 40 MB/s a connection"
    SLOW = "http, 10 MB/s a connection"
    FAR = "http, 50 ms before every answer, 10 MB/s a connection"


CAP_RATE = {Face.CAPPED: 40_000_000, Face.SLOW: 10_000_000, Face.FAR: 10_000_000}  # bytes per second and connection
FAR_LATENCY_S = 0.05


@dataclass(frozen=True)
class Rival:
    """A peer, and the most that our wall time may be of its."""

    tool: str
    ratio: float


@dataclass(frozen=True)
class Case:
    """One case. `repos` are used in turn, a fresh one each time where a store that knows the file would spoil it."""

    name: str
    title: str
    face: Face
    repos: tuple[Repo, ...]
    rivals: tuple[Rival, ...]
    times: int = 1  # runs in each round: quick ones need more for a steady median
    everything: bool = False  # ask for all files of the repository, where the rules would choose some
    from_rename: bool = False  # ours is the time from the want's rename to `ready`, not a command's


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    big: int
    shard: int
    many: int
    small: int
    far_small: tuple[int, int]  # number and size
    far_big: int
    rounds_max: int
    kills: int

    @property
    def is_full(self) -> bool:
        """Whether the ratios mean anything."""
        return self.big >= GIB


FULL = Scale(4 * GIB, 512 * MIB, 2000, 50_000, (200, 1_000_000), GIB, rounds_max=20, kills=20)
# Every path through the code, nothing to measure: for the tests.
SHORT = Scale(6 * MIB, MIB + 4096, 30, 50_000, (6, 100_000), 5 * MIB, rounds_max=1, kills=3)


def one_file(scale: Scale) -> Repo:
    """The one large file."""
    return Repo("bench/one", (("one-Q4_K_M.gguf", scale.big),))


def cases(scale: Scale) -> list[Case]:
    """All of them, those that share files next to each other."""
    one = (one_file(scale),)
    gib = f"{scale.big / GIB:g} GiB" if scale.is_full else "one file"
    shards = Repo("bench/sharded", tuple((f"model-{n + 1:05d}-of-00008.safetensors", scale.shard) for n in range(8)))
    many = Repo(
        "bench/many",
        tuple((f"part-{n // 100:02d}/tensor-{n:04d}.safetensors", scale.small) for n in range(scale.many)),
    )
    count, size = scale.far_small
    far_files = tuple((f"small-{n:03d}.safetensors", size) for n in range(count))
    far = Repo("bench/far", (*far_files, ("large.safetensors", scale.far_big)))
    times = 5 if scale.is_full else 1
    tiny = tuple(Repo(f"bench/tiny-{n:03d}", (("tiny-Q8_0.gguf", 1500),)) for n in range(times * scale.rounds_max))
    return [
        Case(
            "capped",
            f"{gib}, each connection capped at 40 MB/s",
            Face.CAPPED,
            one,
            (Rival("hf", 0.1), Rival("aria2", 1.0)),
        ),
        Case("http", f"{gib}, loopback http", Face.PLAIN, one, (Rival("curl", 1.0), Rival("hf", 0.6))),
        Case("tls", f"{gib}, TLS", Face.TLS, one, (Rival("aria2", 0.5), Rival("curl", 1.2))),
        Case(
            "many",
            f"a repo of {scale.many:,} files of 50 kB",
            Face.PLAIN,
            (many,),
            (Rival("hf", 0.5),),
            everything=True,
        ),
        Case(
            "sharded",
            f"a sharded model, 8 files of {scale.shard // MIB} MiB",
            Face.PLAIN,
            (shards,),
            (Rival("hf", 0.6),),
        ),
        Case("tiny", "tiny model, agent running", Face.PLAIN, tiny, (Rival("hf", 0.1),), times=times, from_rename=True),
        Case(
            "far",
            f"50 ms before every answer and 10 MB/s a connection, {count} files of {size / 1e6:g} MB and one of "
            f"{scale.far_big / GIB:.2g} GiB",
            Face.FAR,
            (far,),
            (Rival("hf", 0.3),),
            everything=True,
        ),
    ]
