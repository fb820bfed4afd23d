"""hypothesis for pure functions: no deadlines, since a busy machine proves nothing about them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("core", deadline=None)
if settings.get_current_profile_name() == "default":  # not where `make fuzz` has chosen another
    settings.load_profile("core")
