"""A ring of stock nginx carries the bytes: the origin sends each once, whatever happens to members and slices."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fleet.fleet import MIB, ORIGIN, Fleet, Host, make_certificates
from tests.harness import wait_until
from tests.hub import models
from tests.hub.access import TOKEN_GRANTED

HOSTS = 8
GGUF, GATED = "qwen3", "wantd/gated"
GGUF_MIB = 64
SHARDED = "wantd/sharded"
ONCE = 1.05  # times its size is what the origin may send
MakeFleet = Callable[..., Fleet]


def is_right(fleet: Fleet, host: Host, name: str) -> None:
    """Every file of the want is what the Hub has, by its hash."""
    answer = host.agent.progress(name)
    assert answer is not None
    for model in answer["models"]:
        files = fleet.hub.repos()[model["repo"]]["files"]
        root = Path(model["path"])
        root = root.parent if root.is_file() else root
        assert model["files"]
        for file in model["files"]:
            with (root / file["name"]).open("rb") as stream:
                assert hashlib.file_digest(stream, "sha256").hexdigest() == files[file["name"]]["sha256"]


def size_of(host: Host, *names: str) -> int:
    """Bytes of all models of the wants."""
    answers = [host.agent.progress(name) for name in names]
    return sum(model["bytes_total"] for answer in answers if answer for model in answer["models"])


def drop(hosts: Sequence[Host], name: str, content: str) -> None:
    for host in hosts:
        host.agent.drop(name, content)


def ready(hosts: Sequence[Host], *names: str) -> None:
    for host in hosts:
        for name in names:
            host.agent.ready(name, deadline_s=120)


def sharded(directory: Path, size: int) -> list[str]:
    """Arguments for a Hub that has a model of eight safetensors files, `size` bytes in all."""
    files = models.config_files() | models.sharded_safetensors(size, 8)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return ["--repo", f"{SHARDED}={directory}"]


def test_a_cold_fleet_fetches_each_byte_once(make_fleet: MakeFleet, tmp_path: Path) -> None:
    fleet = make_fleet(HOSTS, "--gguf-size", str(GGUF_MIB * MIB), *sharded(tmp_path, 32 * MIB))
    fleet.start()
    names = {"one": GGUF, "eight": SHARDED}
    for name, model in names.items():
        drop(fleet.hosts, name, model)
    ready(fleet.hosts, *names)
    for host in fleet.hosts:
        for name in names:
            is_right(fleet, host, name)
    first = fleet.hosts[0]
    assert fleet.storage_bytes() <= ONCE * size_of(first, *names)
    weights = [name for name in _resolved(fleet) if name.endswith((".gguf", ".safetensors"))]
    assert sorted(weights) == sorted(set(weights)), "each redirect is asked for once"
    for repo in {model["repo"] for name in names for model in (first.agent.progress(name) or {})["models"]}:
        assert len(fleet.asked_hub(f"/api/models/{repo}/revision/")) <= HOSTS
    answer = first.agent.progress("one")
    assert answer is not None
    assert answer["models"][0]["source"] == "fleet"


def _resolved(fleet: Fleet) -> list[str]:
    return [line.rpartition("/")[2].partition("?")[0] for line in fleet.asked_hub("/resolve/")]


def test_members_that_die_on_the_way_are_passed_over(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(HOSTS, "--gguf-size", str(GGUF_MIB * MIB))
    for host in fleet.hosts:
        host.agent.set(transfer__max_rate=str(16 * MIB))  # four seconds for the file
    fleet.start()
    drop(fleet.hosts, "one", GGUF)
    dying, living = fleet.hosts[:2], fleet.hosts[2:]
    for host in dying:
        host.agent.wait("one", "downloading")
    wait_until(lambda: all(_done(host) > MIB for host in dying), "they are in the middle of it")
    for host in dying:
        host.kill_nginx()
    for host in dying:
        host.agent.kill()
    ready(living, "one")
    for host in living:
        is_right(fleet, host, "one")
    assert fleet.storage_bytes() <= 1.3 * size_of(living[0], "one")


def _done(host: Host) -> int:
    answer = host.agent.progress("one")
    return int(answer["bytes_done"]) if answer else 0


def test_a_host_whose_own_door_is_shut_goes_to_the_hub(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2, "--gguf-size", str(4 * MIB))
    fleet.hosts[1].start_nginx()
    for host in fleet.hosts:
        host.agent.start()
    drop(fleet.hosts, "one", GGUF)
    ready(fleet.hosts, "one")
    answers = [host.agent.progress("one") for host in fleet.hosts]
    assert [answer["models"][0]["source"] for answer in answers if answer] == ["hub", "fleet"]
    assert "the fleet's door is shut" in fleet.hosts[0].agent.log()


def test_a_poisoned_slice_is_published_nowhere(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(4, "--gguf-size", str(8 * MIB))
    fleet.start()
    first, *others = fleet.hosts
    drop([first], "one", GGUF)
    ready([first], "one")
    poisoned = 0
    for host in fleet.hosts:
        for path in host.cache.rglob("*"):
            if path.is_file() and path.stat().st_size > MIB:
                with path.open("r+b") as file:
                    file.seek(-1000, 2)
                    file.write(b"poison")
                poisoned += 1
    assert poisoned == 8
    drop(others, "one", GGUF)
    ready(others, "one")
    for host in others:
        is_right(fleet, host, "one")
        assert "from the Hub, not from the fleet" in host.agent.log()
    assert "hub" in str((others[0].agent.progress("one") or {})["models"][0]["source"])


def test_what_is_gated_does_not_enter_the_ring(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(4)
    granted, strangers = fleet.hosts[:2], fleet.hosts[2:]
    for host in granted:
        host.agent.set(HF_TOKEN=TOKEN_GRANTED)
    fleet.start()
    drop(fleet.hosts, "gated", GATED)
    ready(granted, "gated")
    for host in strangers:
        assert host.agent.failed("gated")["code"] == "gated"
    # A tool that sends its token to the door: it must go no further.
    url = f"http://127.0.0.1:8100/{GATED}/resolve/main/config.json"
    code = "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], headers={'Authorization': sys.argv[2]}))"
    asked = granted[0].run(sys.executable, "-c", code, url, f"Bearer {TOKEN_GRANTED}")
    assert asked.returncode, "a gated file came through the ring"
    for host in fleet.hosts:
        for place in ("place0", "place1"):
            for path in (host.root / place).rglob("*"):
                if path.is_file():
                    data = path.read_bytes()
                    assert TOKEN_GRANTED.encode() not in data, path
                    assert GATED.encode() not in data, path
        for pid in host.nginx_pids():
            assert TOKEN_GRANTED.encode() not in memory(pid) or host is granted[0]
    checked = granted[0].run(sys.executable, "-m", "agent", "fleet", "check", "--hosts", str(fleet.list))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("no token") == 2


def memory(pid: int) -> bytes:
    """All that a process has written to its memory and not swapped: the heap and other private mappings."""
    found = bytearray()
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as file:
        for line in maps:
            span, modes, *_ = line.split()
            if not modes.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            try:
                file.seek(start)
                found += file.read(end - start)
            except OSError:
                continue
    return bytes(found)


def test_members_with_certificates_admit_no_other(make_fleet: MakeFleet, tmp_path: Path) -> None:
    fleet = make_fleet(2, "--gguf-size", str(4 * MIB), tls=True)
    fleet.start()
    drop(fleet.hosts, "one", GGUF)
    ready(fleet.hosts, "one")
    assert (fleet.hosts[1].agent.progress("one") or {})["models"][0]["source"] == "fleet"
    look = [sys.executable, "-m", "agent", "fleet", "check", "--hosts", str(fleet.list), "--tls-dir"]
    checked = fleet.hosts[0].run(*look, str(fleet.tls_dir))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "certificate for 36" in checked.stdout
    make_certificates(tmp_path)
    stranger = fleet.hosts[0].run(*look, str(tmp_path))
    assert stranger.returncode == 1
    assert stranger.stdout.count("BAD") == 4


def test_the_hubs_own_tools_work_through_the_door(make_fleet: MakeFleet, tmp_path: Path) -> None:
    fleet = make_fleet(2, *sharded(tmp_path, 16 * MIB))
    fleet.start(agents=False)
    code = (
        "import sys, json; from huggingface_hub import snapshot_download;"
        "print(json.dumps(snapshot_download(sys.argv[1], local_dir=sys.argv[2])))"
    )
    for host in fleet.hosts:
        done = host.run(
            sys.executable, "-c", code, SHARDED, str(host.root / "got"), HF_ENDPOINT="http://127.0.0.1:8100"
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
        for name, file in fleet.hub.repos()[SHARDED]["files"].items():
            assert hashlib.sha256((host.root / "got" / name).read_bytes()).hexdigest() == file["sha256"]
    sizes = sum(file["size"] for file in fleet.hub.repos()[SHARDED]["files"].values() if file["size"] > MIB)
    assert fleet.storage_bytes() <= ONCE * sizes + MIB


def test_the_door_is_what_it_says_and_serves_this_host_alone(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(2)
    fleet.start(agents=False)
    inside, outside = fleet.hosts
    asked = "curl", "-sS", "-o", "/dev/null", "-D", "-", "-w", "%{http_code}"
    assert "X-Wantd-Fleet: door gpu-1" in inside.run(*asked, "http://127.0.0.1:8100/").stdout
    assert outside.run(*asked, f"http://{inside.address}:8100/").returncode
    stranger = f"http://{inside.address}:8110/-/fleet"
    assert outside.run(*asked, stranger).stdout.endswith("200")
    assert inside.run(*asked, "-X", "PUT", "http://127.0.0.1:8100/a/b/resolve/main/c").stdout.endswith("403")
    for path in ("/a/b/resolve/main/c", "/a/b/resolve/main/c?x=1"):
        assert outside.run(*asked, f"http://{inside.address}:8110{path}").stdout.endswith("400"), "no slice was named"
    from_origin = fleet.curl(f"http://{inside.address}:8110/-/fleet")
    assert from_origin.endswith("403"), f"{ORIGIN} is no member"
