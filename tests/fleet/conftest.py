"""Fleets for the tests. Each takes a second or two to make, and everything of it goes with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.fleet import Fleet

MAKE_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Eight agents and eight nginx on two cores take their time."""
    for item in items:
        item.add_marker(pytest.mark.timeout(MAKE_S))


@pytest.fixture
def make_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Fleet]]:
    """`make_fleet(count, *arguments of the Hub, …)`: a fleet that is there, and that nobody has started."""
    with ExitStack() as stack:

        def make(count: int, *hub: str, **more: Any) -> Fleet:
            root: Path = tmp_path_factory.mktemp("fleet")
            for above in (root, *root.parents[:2]):
                above.chmod(0o755)  # nginx's workers are another user
            return stack.enter_context(Fleet(root, count, *hub, **more))

        yield make
