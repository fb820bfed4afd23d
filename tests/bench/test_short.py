"""The benchmark's short form: every case with tiny files, ours and whatever peers are installed. Nothing is timed.

On a machine without nginx the embedded Hub sends the bytes itself; without a peer its runs are left out. Both are said
in the reason of the tests that are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import install
from bench.cases import SHORT, Case, Face, cases
from bench.runner import OURS, Bench, Measured, toolbox
from bench.servers import Nginx

CASES = cases(SHORT)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx | None]:
    """A real one, where it is installed. Its workers are of another user where it is started as root."""
    if not Nginx.is_installed():
        yield None
        return
    with Nginx(str(tmp_path_factory.mktemp("nginx")), str(tmp_path_factory.mktemp("www"))) as running:
        yield running


@pytest.fixture
def bench(nginx: Nginx | None, tmp_path: Path) -> Bench:
    """The short bench; what it says goes to standard output."""
    www = nginx.www if nginx else str(tmp_path / "www")
    return Bench(SHORT, www, str(tmp_path / "work"), nginx, toolbox(install.present()), print)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_tool_brings_every_file_of_a_case_whole(bench: Bench, case: Case) -> None:
    if bench.nginx is None and case.face is Face.TLS:
        pytest.skip("nginx or openssl is not installed: apt-get install nginx openssl")
    measured = bench.run(case, rounds=1)  # raises where a file is missing or has another hash
    assert OURS in measured.usages
    assert all(usage.wall_s > 0 and usage.rss_bytes > 0 for usage in measured.usages[OURS])
    say_what_was_left_out(measured)


def test_what_is_killed_again_and_again_ends_with_the_right_bytes(bench: Bench) -> None:
    if bench.nginx is None:
        pytest.skip("nginx or openssl is not installed: apt-get install nginx openssl")
    killed = bench.kill(seed=1)
    assert killed.kills > 0
    assert killed.right
    assert killed.sent >= killed.size


def say_what_was_left_out(measured: Measured) -> None:
    """Ours passed; a peer that is not there is told, not hidden."""
    if measured.left_out:
        pytest.skip(f"wantd alone was run: {', '.join(measured.left_out)} not installed (apt-get install curl aria2)")
