"""One user of the spool: writes, rewrites, touches and removes wants of all kinds in a directory of its own.

Run as `python -I -S -c SOURCE DIRECTORY SEED`: it needs nothing but the standard library, since the user that it runs
as may not be able to read this checkout. It always has some dozens of wants, so that the load stays the same.
"""

import contextlib
import json
import os
import random
import shutil
import sys
import time

LIVE = 40  # wants at most; each is removed some time
PAUSE_S = (0.02, 0.15)
GOOD = (
    "qwen3",
    "Qwen3:Q8_0",
    "gpt-oss-20b",
    "gemma3",
    "wantd/revisions@dev",
    "wantd/revisions@v1.0",
    "wantd/split",
    "wantd/names",
    "wantd/many",
    "Qwen/Qwen3-0.6B",
    "https://huggingface.co/wantd/revisions/tree/main",
)
BAD = (
    "wantd/gated",
    "wantd/private",
    "wantd/empty",
    "wantd/no-default-quant",
    "wantd/torch-only",
    "../etc/passwd",
    "a b",
)


def content(chance: random.Random) -> bytes:
    """What a want may hold."""
    name = chance.choice(GOOD if chance.random() < 0.7 else BAD)
    kind = chance.randrange(12)
    if kind < 4:
        return name.encode()
    if kind == 4:
        return f"# a comment\r\n{name}\r\n{chance.choice(GOOD)}\r\n".encode()
    if kind == 5:
        return json.dumps({"model": name, "priority": chance.randrange(10), "labels": {"who": "soak"}}).encode()
    if kind == 6:
        return json.dumps({"model": "qwen3", "files": [chance.choice(("*.gguf", "*Q8_0*", "*Q2_K*"))]}).encode()
    if kind == 7:
        return json.dumps({"models": chance.sample(GOOD, 4), "priority": 3}).encode()
    if kind == 8:
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + chance.randrange(20)))
        return json.dumps({"model": name, "not_before": soon}).encode()
    if kind == 9:
        return json.dumps([f"qwen{chance.randrange(1000)}" for _ in range(chance.randrange(1, 200))]).encode()
    if kind == 10:
        return chance.choice((b'{"modle": "qwen3"}', b"{", b"\xff\xfe", b"[" * 5000, b"x" * 2_000_000))
    return json.dumps(
        {"model": "wantd/many", "files": [f"part-{chance.randrange(3):02d}/*" for _ in range(50)]}
    ).encode()


def write(path: str, data: bytes, chance: random.Random) -> None:
    """As programs do: in place, or by a temporary file and a rename."""
    if chance.random() < 0.5:
        with open(path, "wb") as file:
            file.write(data)
    else:
        with open(f"{path}.new", "wb") as file:
            file.write(data)
        os.rename(f"{path}.new", path)


def odd(path: str, chance: random.Random) -> None:
    """Something of a want's name that is none."""
    kind = chance.randrange(4)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        os.symlink("/etc/passwd", path)
    elif kind == 2:
        os.mkdir(path)
    else:
        with open(path, "wb") as file:
            file.truncate(2**40)


def storm(directory: str, chance: random.Random) -> None:
    """A tree of wants that comes, moves and goes."""
    one, other = f"{directory}/storm", f"{directory}/calm"
    os.makedirs(f"{one}/a/b")
    for number in range(20):
        with open(f"{one}/{chance.choice(('.', 'a', 'a/b'))}/{number}.want", "wb") as file:
            file.write(content(chance))
    os.rename(one, other)
    time.sleep(chance.random())
    shutil.rmtree(other, ignore_errors=True)


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.unlink(path)


def main(directory: str, seed: int) -> None:
    chance = random.Random(seed)
    live: list[str] = []
    number = 0
    while True:
        time.sleep(chance.uniform(*PAUSE_S))
        what = chance.random()
        with contextlib.suppress(OSError):  # the agent removes a directory's progress files while it is being removed
            if what < 0.45 or not live:
                number += 1
                path = f"{directory}/w{number}.want"
                live.append(path)
                if what < 0.02:
                    odd(path, chance)
                else:
                    write(path, content(chance), chance)
            elif what < 0.6:
                write(chance.choice(live), content(chance), chance)
            elif what < 0.7:
                os.utime(chance.choice(live))
            elif what < 0.71:
                storm(directory, chance)
            elif what < 0.73:
                os.unlink(chance.choice(live).replace(".want", ".progress"))
            else:
                remove(live.pop(chance.randrange(len(live))))
            while len(live) > LIVE:
                remove(live.pop(0))


main(sys.argv[1], int(sys.argv[2]))
