"""`wantd check`: checks everything the agent needs, and says what is wrong and how to fix it."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.config import (
    Config,
    catalog_path,
    find_file,
    hub_token,
    listen_addresses,
    load,
    own_directories,
    process_environment,
    proxy_key,
)
from agent.core.catalog import parse_catalog
from agent.core.words import size
from agent.errors import Code, Exit, WantdError
from agent.reports.status import agent_of
from agent.sources.host_caches import HostCaches
from agent.store.hub_view import obstacle
from agent.store.layout import Layout
from agent.store.locks import Locks

# Run in a second process: exits with 1 when it cannot have the lock that this one holds.
PROBE = "import sys; from agent.store.locks import Locks; sys.exit(Locks().try_acquire(sys.argv[1]) is None)"
GOOD, WARNING, BAD = "ok", "warning", "BAD"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `fix` says what to do where it is not good."""

    grade: str
    subject: str
    text: str
    fix: str = ""


EXAMPLES = """\
examples:
  wantd check
  wantd check --no-network
  sudo -u wantd wantd check          as the agent of the service sees it
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to skip."""
    parser.add_argument("--no-network", action="store_true", help="do not contact the Hub or the proxy")


def call(arguments: argparse.Namespace) -> int:
    """Print the findings. Returns 0, or 1 when one is bad."""
    environ = process_environment()
    config = load(arguments.config, environ)
    file = arguments.config or find_file(environ)
    findings = [Finding(GOOD, "configuration", file or "no file: defaults and environment")]
    looks: list[Callable[[Config], Iterator[Finding]]] = [_catalog, _spool, _store, _view, _disk, _caches, _face]
    for look in looks:
        findings += look(config)
    if not arguments.no_network:
        findings += asyncio.run(_network(config))
        findings += asyncio.run(_proxy(config))
    for finding in findings:
        print(f"{finding.grade:<8} {finding.subject:<14} {finding.text}")
        if finding.fix:
            print(f"{'':<23} -> {finding.fix}")
    return Exit.FAILURE if any(finding.grade == BAD for finding in findings) else Exit.OK


def _catalog(config: Config) -> Iterator[Finding]:
    path = catalog_path(config)
    try:
        with open(path, "rb") as file:
            catalog = parse_catalog(file.read())
    except (OSError, ValueError) as error:
        yield Finding(BAD, "catalog", f"{path}: {error}", "fix the file, or set catalog.path to another one")
        return
    ids = ", ".join(sorted(entry.id for entry in catalog.entries.values()))
    yield Finding(GOOD, "catalog", f"{path}: {len(catalog.entries)} models: {ids}")
    for problem in catalog.problems:
        yield Finding(WARNING, "catalog", problem, "fix the entry; it is ignored until then")


def _spool(config: Config) -> Iterator[Finding]:
    path = config.spool.dir
    if not os.path.isdir(path):
        yield Finding(WARNING, "spool", f"{path} does not exist", "the agent creates it when it starts")
        return
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        fix = "let this user read and write it: progress files are written there"
        yield Finding(BAD, "spool", f"{path} is not readable and writable for uid {os.geteuid()}", fix)
        return
    agent = agent_of(path, Layout(config.store.dir))
    pid = f" (pid {agent.said.pid})" if agent.said else ""
    served = f"served by an agent{pid}" if agent.running else "agent not running"
    yield Finding(GOOD, "spool", f"{path}: {served}")
    if agent.running and agent.said and agent.said.restart_needed:
        keys = ", ".join(agent.said.restart_needed)
        yield Finding(WARNING, "configuration", f"changed but not applied: {keys}", "restart the agent to apply it")


def _store(config: Config) -> Iterator[Finding]:
    layout = Layout(config.store.dir)
    try:
        layout.create()
    except WantdError as error:
        yield Finding(BAD, "store", error.message, error.hint)
        return
    yield Finding(GOOD, "store", layout.root)
    lock = Locks().try_acquire(f"{layout.locks}/.check.lock")
    if lock is None:
        return  # another check is running
    try:
        second = subprocess.run([sys.executable, "-c", PROBE, lock.path], check=False, timeout=30)
    finally:
        lock.release()
    excluded = second.returncode == 1
    if excluded:
        yield Finding(GOOD, "locks", "flock works between processes")
    else:
        fix = "move the store to a file system with working flock(2), or let only one agent use it"
        yield Finding(WARNING, "locks", "flock has no effect on this file system", fix)


def _view(config: Config) -> Iterator[Finding]:
    hub = config.store.hub_cache
    if not hub:
        yield Finding(GOOD, "view", "none: store.hub_cache is empty")
    elif why := obstacle(Layout(config.store.dir), hub):
        fix = "set store.hub_cache to a writable directory on the store's file system, or to an empty string"
        yield Finding(WARNING, "view", f"cannot create {hub}: {why}", fix)
    else:
        yield Finding(GOOD, "view", f"{hub}: programs find the models by name with HF_HUB_CACHE={hub} HF_HUB_OFFLINE=1")


def _disk(config: Config) -> Iterator[Finding]:
    if not os.path.isdir(config.store.dir):
        return
    usage = shutil.disk_usage(config.store.dir)
    text = f"{size(usage.free)} free of {size(usage.total)}"
    if usage.free - config.store.min_free_bytes < 10e9:
        yield Finding(WARNING, "disk", text, "free space, or set store.dir to a larger disk; 7B at Q4_K_M takes 5 GB")
    else:
        yield Finding(GOOD, "disk", text)


def _caches(config: Config) -> Iterator[Finding]:
    """What other programs of this host have that could be adopted."""
    caches = HostCaches(lambda: config.adopt.caches, process_environment(), lambda: own_directories(config))
    found = caches.survey()
    for one in found:
        files = "1 file" if one.files == 1 else f"{one.files} files"
        yield Finding(GOOD, "adoption", f"{one.cache} cache {one.root}: {files}, {size(one.size)}")
    if not found:
        text = "off" if not config.adopt.caches else "no cache of another program found, or none that may be read"
        yield Finding(GOOD, "adoption", text)


def _face(config: Config) -> Iterator[Finding]:
    said = agent_of(config.spool.dir, Layout(config.store.dir))
    if not config.http.listen:
        yield Finding(GOOD, "http", "off")
    elif not said.running or not said.said:
        addresses = listen_addresses(config, process_environment())
        yield Finding(GOOD, "http", f"{', '.join(map(str, addresses))} when the agent runs")
    elif len(said.said.listening) < len(config.http.listen):
        text = f"listening on {', '.join(said.said.listening) or 'nothing'}, not on all of http.listen"
        yield Finding(WARNING, "http", text, "see the agent's log for the reason, or change http.listen")
    else:
        yield Finding(GOOD, "http", ", ".join(said.said.listening))


async def _network(config: Config) -> list[Finding]:
    from agent.net.address import AddressRule
    from agent.net.budget import HostBudgets
    from agent.net.client import Http

    endpoint, token = config.hub.endpoint, hub_token(config, process_environment())
    if config.hub.offline:
        return [Finding(WARNING, "Hub", "offline by configuration", "unset HF_HUB_OFFLINE and hub.offline to download")]
    rule = AddressRule(False, endpoint)
    async with Http(rule, HostBudgets(), environ=process_environment()) as http:
        try:
            response = await http.get(f"{endpoint}/api/whoami-v2", f"Bearer {token}" if token else None)
        except WantdError as error:
            return [Finding(BAD, "Hub", f"{endpoint}: {error.message}", error.hint)]
    if response.status == 200 and token:
        return [Finding(GOOD, "Hub", f"{endpoint}: reachable, token accepted")]
    if token and response.status in (401, 403):
        fix = "create a new token in the Hub's settings, and put it into HF_TOKEN or the token file"
        return [Finding(BAD, "Hub", f"{endpoint}: reachable, but it rejects the token", fix)]
    return [Finding(GOOD, "Hub", f"{endpoint}: reachable" + ("" if token else "; no token set, public models only"))]


async def _proxy(config: Config) -> list[Finding]:
    """Whether the load balancer or mirror is reachable. The key is sent only where `proxy.kind` says load balancer."""
    from agent.net.address import AddressRule
    from agent.net.budget import HostBudgets
    from agent.net.client import Http

    url, environ = config.proxy.url, process_environment()
    if not url:
        return []
    key = proxy_key(environ) if config.proxy.kind == "llmlb" else None
    rule = AddressRule(False, url)
    async with Http(rule, HostBudgets(), environ=environ, unreachable=Code.PROXY_UNREACHABLE) as http:
        try:
            response = await http.get(
                f"{url}/api/models/registry/wantd-check/manifest.json", f"Bearer {key}" if key else None
            )
        except WantdError as error:
            return [Finding(BAD, "proxy", f"{url}: {error.message}", error.hint)]
    if config.proxy.kind == "llmlb" and response.status in (401, 403):
        return [Finding(BAD, "proxy", f"{url}: reachable, but it rejects the key", "set LLM_RUNTIME_API_KEY")]
    return [Finding(GOOD, "proxy", f"{url}: reachable")]
