"""hypothesis for pure functions: no deadlines, since a busy machine proves nothing about them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("core", deadline=None)
settings.load_profile("core")
