"""Budgets: what one producer, one want, one repository or one server may cost. docs/SECURITY.md has the same list.

Each bounds a place where a stranger's number multiplies something. What is over a budget is put off, told in fewer
words, or done again later; it is refused only where it says so. How long things may take is in `core.retry`, how large
a want or a response may be where it is read.
"""

from __future__ import annotations

LOOKUPS_AT_ONCE = 32  # look-ups of names under way, each a thread: a server's redirects can name any number of hosts
