"""`make mutants` makes every small change once, each a change, and lets no excuse grow old."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.harness import CHECKOUT
from tests.mutants.__main__ import without_known
from tests.mutants.changes import changes
from tests.mutants.known import Known, read_known, read_values
from tests.mutants.run import Copies, Mutant, UnchangedFails


def made(source: str) -> list[str]:
    return [change.apply(source) for change in changes(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("a == b is c", ["a != b is c", "a == b is not c"]),
        ("a not in b", ["a in b"]),
        ("(a) is  not (b)", ["(a) is (b)"]),
        ("a and b and c", ["a or b and c", "a and b or c"]),
        ("x = -(a + b)", ["x = (a + b)", "x = -(a - b)"]),
        ("x = a or not b", ["x = a and not b", "x = a or  b"]),
        ("n = 7", ["n = 6", "n = 8"]),
        ("n = 0", ["n = 1"]),
        ("n = 1000", ["n = 500", "n = 2000"]),
        ("n = 0.5", ["n = 0.25", "n = 1.0"]),
        ("n = True", ["n = False"]),
        ("x = a if b else c", ["x = a if not (b) else c"]),
        ("if a(b):\n    c", ["if not (a(b)):\n    c"]),
        ("x = [a for a in b if a.c]", ["x = [a for a in b if not (a.c)]"]),
        ("n += x", ["n -= x", "pass"]),
        ("a.b = c", ["pass"]),
        ("a.b(c)", ["pass"]),
        ("await a(b)", ["pass"]),
        ("del a[b]", ["pass"]),
        ("x = min(a, b)", ["x = max(a, b)"]),
        ("x = (\n    a  # not a + b\n    + b\n)", ["x = (\n    a  # not a + b\n    - b\n)"]),
        ("x = 'é' + y", ["x = 'é' - y"]),
        ("for a in b:\n    continue", ["for a in b:\n    break"]),
        ("x: Annotated[int | None, Meta(ge=1)]", [f"x: Annotated[int | None, Meta(ge={n})]" for n in (0, 2)]),
    ],
)
def test_each_small_change_is_made(source: str, expected: list[str]) -> None:
    assert sorted(made(source)) == sorted(expected)


@pytest.mark.parametrize(
    "source",
    [
        "def f(a: int | None = None, *, b: str) -> list[int] | None: ...",
        "@dataclass(frozen=True)\nclass A(B, total=False): ...",
        "x = f'{a + 1}'",
        "logger.opt(lazy=True).info('x', a + 1)",
        "self.job.log.info('x', a + 1)",
        "x = zip(a, b, strict=True)",
        "if TYPE_CHECKING:\n    import a",
    ],
)
def test_what_no_test_could_notice_is_left_alone(source: str) -> None:
    assert made(source) == []


@pytest.mark.parametrize("path", sorted((CHECKOUT / "agent").rglob("*.py")), ids=lambda path: path.stem)
def test_every_change_to_the_agent_is_python_and_differs(path: Path) -> None:
    source = path.read_text()
    every = made(source)
    assert len(set(every) | {source}) == len(every) + 1
    for text in every[::10]:
        ast.parse(text)


def mutant(source: str, number: int = 0) -> Mutant:
    return Mutant("agent/core/x.py", source, changes(source)[number])


def test_a_known_change_is_left_out_and_one_that_fits_nothing_is_told() -> None:
    entry = Known("agent/core/x.py", "if a < b:", "if a <= b:", "a is never b")
    gone = Known("agent/core/x.py", "if a < c:", "if a <= c:", "a is never c")
    source = "if a  <  b:\n    f = 0"
    left, stale = without_known([mutant(source, 0), mutant(source, 1)], [entry, gone])
    assert left == [mutant(source, 1)]
    assert stale == [gone]


def test_the_number_of_a_constant_is_told_from_others() -> None:
    source = "A = 1\nB = 2 * 3\n\ndef f(c=4):\n    d = 5"
    assert {change.line for change in changes(source) if change.of_constant} == {1}
    assert {change.line for change in changes(source) if not change.of_constant} == {2, 4, 5}


def test_an_excuse_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="why"):
        read_known('[[known]]\nfile = "a"\nwas = "b"\nnow = "c"')
    assert read_known('[[known]]\nfile = "a"\nwas = "b"\nnow = "c"\nwhy = "d"') == [Known("a", "b", "c", "d")]
    with pytest.raises(ValueError, match="why"):
        read_values('[[values]]\nfile = "a"\nwhy = ""')
    assert read_values('[[values]]\nfile = "a"\nwhy = "b"') == {"a": "b"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A project whose tests notice what `twice` does, and nothing of `thrice`."""
    root = tmp_path / "checkout"
    for folder in ("agent", "tests/core", "tests/mutants"):
        (root / folder).mkdir(parents=True)
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\naddopts = "-q"\n')
    (root / "agent" / "__init__.py").touch()
    (root / "tests" / "mutants" / "plugin.py").write_text((CHECKOUT / "tests" / "mutants" / "plugin.py").read_text())
    (root / "agent" / "x.py").write_text("def twice(n):\n    return n * 2\n\n\ndef thrice(n):\n    return n * 3\n")
    (root / "tests" / "core" / "test_x.py").write_text(
        "from agent.x import twice\n\n\ndef test_twice():\n    assert twice(4) == 8\n"
    )
    return root


def test_what_the_tests_notice_is_told_from_what_they_do_not(checkout: Path, tmp_path: Path) -> None:
    source = (checkout / "agent" / "x.py").read_text()
    mutants = [Mutant("agent/x.py", source, change) for change in changes(source)]
    seen: list[bool] = []
    copies = Copies(checkout, tmp_path / "scratch", "tests/core", 2)
    survivors = list(copies.run(mutants, lambda _, noticed: seen.append(noticed)))
    assert [survivor.change.line for survivor in survivors] == [6, 6, 6]
    assert sorted(seen) == [False] * 3 + [True] * 3
    assert (checkout / "agent" / "x.py").read_text() == source
    assert "-    return n * 3\n+    return n / 3" in survivors[0].diff


def test_tests_that_fail_on_the_code_as_it_is_say_nothing_about_changes(checkout: Path, tmp_path: Path) -> None:
    (checkout / "agent" / "x.py").write_text("def twice(n):\n    return n\n")
    with pytest.raises(UnchangedFails, match="unchanged"):
        Copies(checkout, tmp_path / "scratch", "tests/core", 1)
