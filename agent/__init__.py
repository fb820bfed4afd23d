"""wantd: drop `NAME.want` into a directory, get a verified model.

The house, from the door down; imports point down only (import-linter holds it):

- `cli/`: the commands; the only code that prints or exits
- `app.py`: builds every part, starts, drains, stops; `embedded_hub/`: a small Hub for the demo
- `services/`: what runs for long: intake (names that changed become jobs), board (which jobs there are, and when each
  goes on), jobs (one from reference to published model, by way of planning and files), reporter (progress files),
  housekeeping (the one scheduler)
- `spool/`, `sources/`, `transfer/`, `store/`: the directory protocol, where bytes come from, how they travel, what is
  published; the four do not know each other
- `net/`: HTTP for all: address rules, redirects, host budgets
- `config.py`, `core/` (pure decisions), `errors.py`

The way of a want: watcher -> intake -> core.want -> core.target -> in the store? ready. Else listing -> core.plan ->
lock -> store again -> transfer to a partial -> verify -> publish -> ready.
"""

__version__ = "0.1.0"
