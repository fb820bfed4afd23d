"""`wantd allow PATTERN…`: adds patterns to `policy.allow` of the configuration file, and reloads the agent."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
from collections.abc import Sequence

import tomlkit
import tomlkit.exceptions
from tomlkit.items import Table

from agent.config import file_to_write, load, process_environment
from agent.disk import Sync, atomic_write
from agent.errors import ConfigError, Exit
from agent.reports.status import AgentState, agent_of
from agent.store.layout import Layout
from agent.store.locks import process_start

EXAMPLES = """\
examples:
  wantd allow Qwen/Qwen3-0.6B      one repository of the Hub
  wantd allow 'Qwen/*'             all of an organization
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to allow."""
    parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="org/name; * stands for any characters")


def call(arguments: argparse.Namespace) -> int:
    """Change the file and reload the agent. Returns 0. Raises ConfigError where the file cannot be changed."""
    environ = process_environment()
    config = load(arguments.config, environ)
    agent = agent_of(config.spool.dir, Layout(config.store.dir))
    theirs = agent.said.config if _is_here(agent) and agent.said and not arguments.config else ""
    path = os.path.realpath(theirs or file_to_write(arguments.config, environ))
    added = _change(path, arguments.patterns)
    if not added:
        print(f"{path}: policy.allow has that already")
        return Exit.OK
    print(f"{path}: policy.allow = {added}")
    print(_reload(agent))
    if "WANTD_POLICY__ALLOW" in environ:
        print("note: WANTD_POLICY__ALLOW is set here; where the agent has it too, it overrides the file")
    return Exit.OK


def with_patterns(text: str, patterns: Sequence[str]) -> tuple[str, list[str]]:
    """The file's text with the patterns added, all else as it was, and what `policy.allow` is then; or nothing new.

    Raises ValueError where the text is not a configuration.
    """
    try:
        document = tomlkit.parse(text)
    except tomlkit.exceptions.ParseError as error:
        raise ValueError(f"is not TOML: {error}") from None
    policy = document.setdefault("policy", tomlkit.table())
    if not isinstance(policy, Table):
        raise ValueError("[policy] is not a table")  # noqa: TRY004  one kind of error for a file that cannot be used
    old = policy.get("allow", "catalog")
    allowed = [str(pattern) for pattern in ([old] if isinstance(old, str) else old)]
    new = [pattern for pattern in dict.fromkeys(patterns) if pattern not in allowed]
    if "any" in allowed or not new:
        return text, []
    policy["allow"] = [*allowed, *new]
    return tomlkit.dumps(document), [*allowed, *new]


def _change(path: str, patterns: Sequence[str]) -> list[str]:
    try:
        old = ""
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            old = file.read()
        text, added = with_patterns(old, patterns)
        if added:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            before = os.stat(path) if os.path.exists(path) else None
            mode = before.st_mode & 0o777 if before else 0o644
            atomic_write(path, text.encode(), mode=mode, exact_mode=True, sync=Sync.DIRECTORY)
            if before and before.st_uid != os.geteuid():  # root changed a user's file: it stays the user's
                os.chown(path, before.st_uid, before.st_gid)
    except OSError as error:
        raise ConfigError([f"cannot change {path}: {error.strerror}; run it as the owner of that file"]) from None
    except ValueError as error:
        raise ConfigError([f"{path}: {error}"]) from None
    return added


def _is_here(agent: AgentState) -> bool:
    """Whether it is a process that this one can see: a pid of another container is another process here."""
    said = agent.said
    here = said is not None and said.host == socket.gethostname() and process_start(said.pid) == said.process_start
    return agent.running and here


def _reload(agent: AgentState) -> str:
    """Tell the agent, and say whether it was told."""
    if agent.said is None or not _is_here(agent):
        return "no agent is running on this host: it reads the file when it starts"
    try:
        os.kill(agent.said.pid, signal.SIGHUP)
    except OSError as error:
        return f"cannot tell the agent (pid {agent.said.pid}: {error.strerror}); run `systemctl reload wantd`"
    return f"reloaded the agent (pid {agent.said.pid}); wants that were refused are looked up again"
