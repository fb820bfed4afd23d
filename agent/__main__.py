"""`python -m agent` is `wantd`."""

from agent.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
