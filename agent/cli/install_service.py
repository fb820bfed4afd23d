"""`wantd install-service`: installs units, users, directories and a configuration from the installed package."""

from __future__ import annotations

import argparse
import os
import pwd
import shutil
import stat
import sys

from agent.cli.host import BACKOFF_SINCE, EXECUTABLE, USER, Host, Places, systemd_version
from agent.config import Config, load, process_environment, shipped
from agent.errors import ConfigError, Exit

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # by ProtectHome= and PrivateTmp= in the unit  # noqa: S108
WRITABLE = ("/var/lib/wantd", "/var/spool")  # by StateDirectory= and ReadWritePaths= in the unit

EXAMPLES = """\
examples:
  wantd install-service --dry-run    print each step, change nothing
  wantd install-service              a service of the host; as root
  wantd install-service --user       a service of this user
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose service, and whether to change anything."""
    parser.add_argument("--user", action="store_true", help="install a service for this user, not for the host")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, change nothing")
    parser.add_argument("--root", default="", metavar="DIR", help="install into the host image below DIR")


def call(arguments: argparse.Namespace) -> int:
    """Install. Returns 0, or 1 for a dry run that found what would keep the installation from working."""
    host = Host(print, arguments.dry_run, os.path.abspath(arguments.root) if arguments.root else "")
    places = Places.of_user(process_environment()) if arguments.user else Places.of_host()
    install(host, places, executable(), arguments.config)
    return Exit.FAILURE if host.problems else Exit.OK


def install(host: Host, places: Places, program: str, config: str | None) -> None:
    """Install the service, without enabling or starting it. Raises ConfigError."""
    version = systemd_version(host)
    if not version and not host.root:
        raise ConfigError(["no systemd found; run `wantd run` under the service manager of this host"])
    if not host.root:
        _check(host, places, program)
    template = config or shipped(f"{places.shipped}/config.toml")
    present = host.at(places.config)
    in_force = load(present if os.path.isfile(present) else template, {})
    elsewhere = _elsewhere(in_force) if places.sysusers else []
    host.put(places.unit, _shipped(f"{places.shipped}/wantd.service").replace(EXECUTABLE, program))
    if version >= BACKOFF_SINCE:
        host.put(f"{places.unit}.d/backoff.conf", _shipped("systemd/backoff.conf"))
    host.put(places.config, _read(template), keep=True)
    if places.sysusers and places.tmpfiles:
        _system(host, places, elsewhere, in_force)
    else:
        host.directory(places.spool)
    if not host.root:
        host.command(*places.systemctl, "daemon-reload")
    control = " ".join(places.systemctl)
    host.say(f"\nstart it now and at each boot:    {control} enable --now wantd")
    if places.sysusers:
        host.say("let a user drop wants:            usermod -aG wantd-producers NAME")
    else:
        host.say("keep it running after log-out:    loginctl enable-linger")


def _system(host: Host, places: Places, elsewhere: list[str], in_force: Config) -> None:
    root = [f"--root={host.root}"] if host.root else []
    for path, name, command in (
        (places.sysusers or "", "sysusers", ("systemd-sysusers",)),
        (places.tmpfiles or "", "tmpfiles", ("systemd-tmpfiles", "--create")),
    ):
        host.put(path, _shipped(f"systemd/{name}.conf"))
        host.command(*command, *root, "wantd.conf")
    paths = f"{places.unit}.d/paths.conf"
    if elsewhere:
        host.put(paths, _paths_unit(_mounts(elsewhere, in_force)))
        for path in elsewhere:
            _own_directory(host, path)
    elif os.path.exists(host.at(paths)):
        host.remove(paths)


def _elsewhere(config: Config) -> list[str]:
    """The configured directories that the unit alone does not let the agent write. Raises ConfigError."""
    paths = (config.store.dir, config.store.hub_cache, config.spool.dir)
    found = [path for path in paths if path and not _is_below(path, WRITABLE)]
    if hidden := [path for path in found if _is_below(path, HIDDEN)]:
        places = ", ".join(HIDDEN)
        raise ConfigError([f"{path}: the service cannot see {places}; choose another directory" for path in hidden])
    return found


def _mounts(elsewhere: list[str], config: Config) -> list[str]:
    """What to make writable. Each path is a mount of its own, and no hard link goes from one mount to another: store
    and view get one for both, unless that is the root directory.
    """
    both = (config.store.dir, config.store.hub_cache)
    if not all(path in elsewhere for path in both) or (above := os.path.commonpath(both)) == "/":
        return elsewhere
    return [above, *(path for path in elsewhere if path not in both)]


def _is_below(path: str, places: tuple[str, ...]) -> bool:
    return any(f"{path}/".startswith(f"{place}/") for place in places)


def _paths_unit(paths: list[str]) -> str:
    quoted = " ".join('"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"' for path in paths)
    why = "# Spool or store are outside the default directories. Written by `wantd install-service`.\n"
    return f"{why}\n[Unit]\nRequiresMountsFor={quoted}\n\n[Service]\nReadWritePaths={quoted}\n"


def _own_directory(host: Host, path: str) -> None:
    """Create a directory that belongs to the agent. An existing one stays as it is; its owner is only checked."""
    new = not os.path.isdir(host.at(path))
    host.directory(path)
    try:
        uid = pwd.getpwnam(USER).pw_uid
    except KeyError:
        return  # in a dry run it does not exist yet, and in an image only there
    if new and not host.dry_run and not host.root:
        shutil.chown(path, USER, USER)
    elif not new and os.stat(host.at(path)).st_uid != uid:
        host.say(f"check      {path}: it does not belong to {USER}, who must be able to write there")


def executable() -> str:
    """The path of the `wantd` that belongs to this interpreter. Raises ConfigError."""
    beside = os.path.join(sys.prefix, "bin", "wantd")
    found = beside if os.path.isfile(beside) else shutil.which("wantd")
    if not found:
        raise ConfigError([f"{sys.executable} has no `wantd` beside it: install the package with pip first"])
    return os.path.abspath(found)


def _check(host: Host, places: Places, program: str) -> None:
    """Raise ConfigError if the host's service cannot see and run the program."""
    fix = "install it where the service can see it: python3 -m venv /opt/wantd && /opt/wantd/bin/pip install wantd"
    if any(character.isspace() or character in "%\"'\\$" for character in program):
        raise ConfigError([f"{program!r}: a unit cannot hold this path; {fix}"])
    if places.sysusers is None:
        return
    problems = []
    for what, path in (("the program", program), ("its Python", os.path.realpath(sys.executable))):
        if place := next((place for place in HIDDEN if path.startswith(f"{place}/")), None):
            problems.append(f"{what}, {path}, is in {place}, which services cannot see; {fix}")
        elif closed := _closed(path):
            problems.append(f"{what}, {path}, is closed to other users by the mode of {closed}; {fix}")
    if problems and host.dry_run:
        host.problems += problems
        for problem in problems:
            host.say(f"problem    {problem}")
    elif problems:
        raise ConfigError(problems)


def _closed(path: str) -> str | None:
    """The part of a path whose mode keeps other users out, or None."""
    while True:
        mode = os.stat(path).st_mode
        if not mode & (stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH):
            return path
        if path == "/":
            return None
        path = os.path.dirname(path)


def _shipped(name: str) -> str:
    return _read(shipped(name))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise ConfigError([f"cannot read {path}: {error.strerror}; install the package again"]) from None
