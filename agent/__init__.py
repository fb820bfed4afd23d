"""wantd: drop `NAME.want` into a directory, get a verified model.

The house, from the door down; imports point down only (import-linter holds it):

- `cli/`: the commands; the only code that prints or exits
- `app.py`: builds every part, starts, drains, stops; `embedded_hub/`: a small Hub for the demo
- `upkeep.py`: what is due by the clock; `clock.py`: the one scheduler
- `http/`: who is told over the network: status, wants, models, events
- `requests/`: who asks: the spool is watched, wants are read and become tickets and jobs
- `reports/`: who is told: progress files, log, systemd, load balancer, `wantd status`
- `jobs/`: who works: which jobs there are and when each goes on, one run from reference to published model
- `state/`: what is going on: tickets, jobs, and the feed that tells of every change
- `spool/`, `sources/`, `transfer/`, `store/`: the directory protocol, where bytes come from, how they travel, what is
  published; the four do not know each other
- `host_files.py`: files of other programs of this host, opened so that nothing else is
- `net/`: HTTP for all: address rules, redirects, host budgets
- `config.py`, `core/` (pure decisions), `errors.py`

The way of a want: watcher -> lookout -> intake -> core.want -> core.target -> in the store? ready. Else board ->
runner -> planner -> slot and lock -> store again -> files: host caches, transfer -> stage -> publish -> ready. Each
step changes a ticket or a job; the feed tells the reports.
"""

__version__ = "0.1.0"
