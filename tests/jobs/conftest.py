"""A workshop for the tests of runner, planner and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.workshop import GGUF, Workshop


@pytest.fixture
async def shop(tmp_path: Path) -> Workshop:
    """One whose models are GGUF models."""
    return Workshop(tmp_path, GGUF)
