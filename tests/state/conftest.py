"""hypothesis for what only computes: no deadlines, since a busy machine proves nothing about them."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("state", deadline=None)
if settings.get_current_profile_name() == "default":  # not where `make fuzz` or `make mutants` has chosen another
    settings.load_profile("state")
