"""`wantd uninstall-service`: removes what `install-service` and the agent created; models and wants stay.

What stays is given to root: the next user created on the host may get the uid of the one that is removed.
"""

from __future__ import annotations

import argparse
import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator

from agent.cli.host import PRODUCERS, USER, Host, Places
from agent.config import load, process_environment
from agent.core.want import PROGRESS_SUFFIX
from agent.disk import TEMP_PREFIX
from agent.errors import ConfigError, Exit
from agent.reports.status import agent_of
from agent.store.hub_view import TAG_NAME, HubView
from agent.store.inventory import Inventory
from agent.store.layout import Layout
from agent.store.publish import Modes

ACCESS_ACL, DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"
CREDENTIALS = ("/etc/credstore/hf_token", "/etc/credstore.encrypted/hf_token")

EXAMPLES = """\
examples:
  wantd uninstall-service --dry-run
  wantd uninstall-service --user
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose service, and whether to change anything."""
    parser.add_argument("--user", action="store_true", help="remove this user's service, not the host's")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, change nothing")
    parser.add_argument("--root", default="", metavar="DIR", help="uninstall from the host image below DIR")


def call(arguments: argparse.Namespace) -> int:
    """Uninstall. Returns 0."""
    host = Host(print, arguments.dry_run, os.path.abspath(arguments.root) if arguments.root else "")
    uninstall(host, Places.of_user(process_environment()) if arguments.user else Places.of_host())
    return Exit.OK


def uninstall(host: Host, places: Places) -> None:
    """Stop the service and remove everything but models and wants. Raises ConfigError."""
    if os.geteuid() and places.sysusers and not host.dry_run:
        raise ConfigError(["only root can remove the host's service; add --user to remove your own"])
    spool, store = _directories(host, places)
    if os.path.exists(host.at(places.unit)) and not host.root:
        host.command(*places.systemctl, "disable", "--now", "wantd.service")
        failed = host.ask(*places.systemctl, "is-failed", "--quiet", "wantd.service")
        if failed is not None and failed.returncode == 0:
            host.command(*places.systemctl, "reset-failed", "wantd.service", fatal=False)
    for path in (places.unit, f"{places.unit}.d", places.overrides, places.sysusers, places.tmpfiles, places.config):
        if path:
            host.remove(path)
    host.remove_empty(os.path.dirname(places.config))
    if not host.root:
        host.command(*places.systemctl, "daemon-reload")
    if _is_served(host, spool, store):
        host.say(f"left       {spool} and {store}: another agent uses them")
    else:
        _tidy(host, places, spool, store)
    if places.sysusers and not host.root:
        for command, name, known in (("userdel", USER, _has_user()), ("groupdel", PRODUCERS, _has_group())):
            if known:
                host.command(command, name, fatal=False)
            else:
                host.say(f"not there  {'user' if command == 'userdel' else 'group'} {name}")
        for path in CREDENTIALS:
            if os.path.exists(host.at(path)):
                host.say(f"left       {path}: wantd did not create it")


def _directories(host: Host, places: Places) -> tuple[str, str]:
    """Spool and store as configured, or the default ones if the configuration cannot be read."""
    with contextlib.suppress(ConfigError):
        if os.path.isfile(host.at(places.config)):
            config = load(host.at(places.config), {})
            return config.spool.dir, config.store.dir
    return places.spool, places.store


def _is_served(host: Host, spool: str, store: str) -> bool:
    """Whether another agent is running. In a dry run it would be the service itself, which is to be stopped."""
    return agent_of(spool, Layout(host.at(store))).running and not host.dry_run


def _tidy(host: Host, places: Places, spool: str, store: str) -> None:
    layout = Layout(store)
    if os.path.isdir(layout.view) and not host.root:
        host.say(f"{'would remove' if host.dry_run else 'removed   '} the view of the models (store.hub_cache)")
        if not host.dry_run:  # no agent would be there to mend it, and its links would keep removed models on the disk
            HubView("", layout, Inventory(layout), Modes(0o644, 0o755)).mend()
    host.remove(layout.view)
    if _is_empty_view(host.at(view := f"{os.path.dirname(store)}/hub")):
        host.remove(view)
    for path in (layout.locks, layout.partial, layout.stamps):
        host.remove(path)
    if os.path.isdir(host.at(spool)):
        count = sum(1 for _ in _progress_files(host.at(spool)))
        host.say(f"{'would remove' if host.dry_run else 'removed   '} {count} progress files in {spool}")
        if not host.dry_run:
            _clear_spool(host.at(spool), shared=places.sysusers is not None)
    if places.sysusers:
        for path in (spool, store):
            if os.path.isdir(host.at(path)):
                host.say(f"{'would give' if host.dry_run else 'gave      '} {path} to root")
        if os.path.isdir(host.at(store)) and not host.dry_run:
            _to_root(host.at(store))
    for path in (store, os.path.dirname(store), spool):
        if path in (places.store, os.path.dirname(places.store), places.spool):
            host.remove_empty(path)


def _is_empty_view(path: str) -> bool:
    """Whether nothing is left of a view but the tag that marks it as a cache."""
    try:
        return os.listdir(path) == [TAG_NAME]
    except OSError:
        return False


def _progress_files(spool: str) -> Iterator[str]:
    for _, _, names, _ in os.fwalk(spool):
        yield from filter(_is_progress_file, names)


def _is_progress_file(name: str) -> bool:
    return name.endswith(PROGRESS_SUFFIX) or name.startswith(TEMP_PREFIX)


def _clear_spool(spool: str, *, shared: bool) -> None:
    """Remove the progress files and, in the host's spool, every right of the user that is removed.

    Producers may change the spool meanwhile: names are used relative to open directories, and links are not followed.
    """
    for _, _, names, folder in os.fwalk(spool):
        for name in names:
            with contextlib.suppress(OSError):
                if _is_progress_file(name):
                    os.unlink(name, dir_fd=folder)
                elif shared:
                    _drop_rights(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder))
        if shared:
            _drop_rights(os.dup(folder))
    if shared:
        os.chown(spool, 0, 0, follow_symlinks=False)
        os.chmod(spool, 0o755)  # noqa: S103  the wants in it stay readable, and nobody can add any


def _drop_rights(fd: int) -> None:
    """Remove the ACL. The group bits of the mode, until now the ACL's mask, would then count: clear group write."""
    try:
        info = os.fstat(fd)
        if not stat.S_ISDIR(info.st_mode) and not (stat.S_ISREG(info.st_mode) and info.st_nlink == 1):
            return
        present = os.listxattr(fd)
        for acl in (ACCESS_ACL, DEFAULT_ACL):
            if acl in present:
                os.removexattr(fd, acl)
        if ACCESS_ACL in present:
            os.fchmod(fd, stat.S_IMODE(info.st_mode) & ~stat.S_IWGRP)
    finally:
        os.close(fd)


def _to_root(store: str) -> None:
    for _, _, names, folder in os.fwalk(store):
        for name in names:
            os.chown(name, 0, 0, dir_fd=folder, follow_symlinks=False)
        os.chown(folder, 0, 0)
    parent = os.path.dirname(store)
    with contextlib.suppress(KeyError, FileNotFoundError):
        if os.stat(parent).st_uid == pwd.getpwnam(USER).pw_uid:
            os.chown(parent, 0, 0)


def _has_user() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def _has_group() -> bool:
    try:
        grp.getgrnam(PRODUCERS)
    except KeyError:
        return False
    return True
