"""The sections of the table: every fault family, what must hold, and where its cases are."""

from __future__ import annotations

from tests.torture import (
    amplification,
    clock,
    directory_games,
    disk,
    herds,
    hub_lies,
    lives,
    load,
    slow_names,
    spool_tricks,
    store_damage,
    view_lives,
)
from tests.torture.cases import Family

_WHOLE = "no bad file, no torn progress file, no lost want, no lock or byte left over"
_NO_HARM = (
    "an unrelated want has its progress file within 1 s, the agent stays below 250 MB, nothing holds its event loop"
)

FAMILIES = [
    Family("Kill -9 at a step", f"before, after and within each call that changes the disk: {_WHOLE}",
           lives.at_steps, together=True),
    Family("Kill -9 at any moment", _WHOLE, lives.at_moments, together=True),
    Family("Kill -9 while adopting", "before, after and within each call that changes store, view or spool: what other "
           "programs have is untouched, the view shows right bytes and in the end all of them, "
           f"{_WHOLE}", view_lives.cases, together=True),
    Family("Damage to published files", "no other model gets the bytes, and what is wanted is right again",
           store_damage.cases, together=True),
    Family("Disk", "full, failing, read-only, removed, two: it is reported, it resumes, nothing is downloaded "
           "twice but what a failed sync left", disk.cases),
    Family("Clock", "no job of the scheduler stands still for more than two intervals",
           clock.cases),
    Family("Load", "floods, lost events, no inotify: no want is lost", load.cases),
    Family("Hostile Hub", "each lie ends in the stated code or in the right bytes, in bounded time and memory; the "
           "token stays; the next want works", hub_lies.cases, together=True),
    Family("Hostile spool", "nothing is followed, blocked on, read or overwritten; others are served",
           spool_tricks.cases),
    Family("Directory games", f"of one user, the agent being another: nothing outside the spool is read, made "
           f"or removed; {_NO_HARM}", directory_games.cases),
    Family("Amplification", f"wants, manifests and repositories made to cost the most: {_NO_HARM}",
           amplification.cases),
    Family("Herds", f"thousands of wants at a server that fails them all: {_NO_HARM}; it is asked less and less often",
           herds.cases),
    Family("Slow DNS", f"{_NO_HARM}; SIGTERM ends the agent within 5 s", slow_names.cases),
]  # fmt: skip
