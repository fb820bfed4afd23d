"""Profiles of hypothesis: `make fuzz` runs every property of the test-suite with the long one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.torture.lives import world

FUZZ_EXAMPLES = 2_000

settings.register_profile(
    "fuzz", max_examples=FUZZ_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
settings.register_profile("no-deadline", deadline=None)  # a loaded machine is no fault
if settings.get_current_profile_name() == "default":
    settings.load_profile("no-deadline")


@pytest.fixture(scope="session", autouse=True)
def the_world_ends() -> Iterator[None]:
    """The Hub of the torture chamber, if any case began it, ends with the tests."""
    yield
    if world.cache_info().currsize:
        world().close()
