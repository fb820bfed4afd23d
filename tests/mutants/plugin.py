"""What pytest is given to run on a changed copy: hypothesis in haste, the changed module's own tests first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

import agent

MODULE = "WANTD_MUTANT"  # the module that was changed, like `names`

# A failure need not be made small, and the same examples each time give the same figures.
settings.register_profile(
    "mutants",
    phases=(Phase.explicit, Phase.generate),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("mutants")


def pytest_configure(config: pytest.Config) -> None:
    """The package must be the copy's, not the one that is installed."""
    if not Path(agent.__file__).is_relative_to(config.rootpath):
        raise pytest.UsageError(f"{agent.__file__} is not in {config.rootpath}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = f"test_{os.environ.get(MODULE, '')}.py"
    items.sort(key=lambda item: item.path.name != first)
