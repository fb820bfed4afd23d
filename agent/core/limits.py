"""Budgets: what one producer, one want, one repository or one server may cost. docs/SECURITY.md has the same list.

Each bounds a place where a stranger's number multiplies something. What is over a budget is put off, told in fewer
words, or done again later; it is refused only where it says so. How long things may take is in `core.retry`, how large
a want or a response may be where it is read.
"""

from __future__ import annotations

BATCH_MODELS = 1_000  # models of the wants that are read before others have their turn; one want may name 10,000
SLICE_MODELS = 200  # models of one want that are looked up, begun, dropped or shown in one turn of the loop: some ms
# Ids that unknown names of one batch are compared with, some 10 us each, for the ids that the hints name.
NEAR_COMPARISONS = 10_000
ERRORS_IN_FULL = 100  # errors of one batch that name their model; 400,000 of them took a GB
PLANS_AT_ONCE = 16  # models that sources are asked about, and whose files are chosen, at a time
PLAN_FILES = 100_000  # files of the plans of jobs that wait for a slot, some 400 bytes each
LOOKUPS_AT_ONCE = 32  # look-ups of names under way, each a thread: a server's redirects can name any number of hosts
OPEN_FOLDERS = 32  # directories of the spool that one batch of work keeps open: a process may open 1,024 files
