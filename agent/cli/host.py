"""Changes to the host, one at a time, each said as it is done: what `install-service` and `uninstall-service` share.

Every change looks first whether it is needed, so that all of it may be done again; with `dry_run` nothing is done.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.errors import ConfigError

EXECUTABLE = "/opt/wantd/bin/wantd"  # what the shipped units say, replaced by the installed program
BACKOFF_SINCE = 254  # the systemd that knows RestartSteps=
USER = "wantd"
PRODUCERS = "wantd-producers"


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything goes. `systemd` is the manager's own part of a command line, `shipped` of the files' names."""

    unit: str
    overrides: str  # where `systemctl edit` keeps the operator's changes
    config: str
    spool: str
    store: str
    sysusers: str | None
    tmpfiles: str | None
    systemctl: tuple[str, ...]
    shipped: str

    @staticmethod
    def of_host() -> Places:
        """A service of the host. `/usr/local/lib` is ours; `/etc` stays the operator's, and wins."""
        return Places(
            unit="/usr/local/lib/systemd/system/wantd.service",
            overrides="/etc/systemd/system/wantd.service.d",
            config="/etc/wantd/config.toml",
            spool="/var/spool/wantd",
            store="/var/lib/wantd/models",
            sysusers="/usr/local/lib/sysusers.d/wantd.conf",
            tmpfiles="/usr/local/lib/tmpfiles.d/wantd.conf",
            systemctl=("systemctl",),
            shipped="systemd",
        )

    @staticmethod
    def of_user(environ: Mapping[str, str]) -> Places:
        """A service of the user who asks."""
        home = environ.get("HOME") or os.path.expanduser("~")
        data = environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
        config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
        return Places(
            unit=f"{data}/systemd/user/wantd.service",
            overrides=f"{config}/systemd/user/wantd.service.d",
            config=f"{config}/wantd/config.toml",
            spool=f"{home}/.llmlb/spool",
            store=f"{home}/.llmlb/models",
            sysusers=None,
            tmpfiles=None,
            systemctl=("systemctl", "--user"),
            shipped="systemd/user",
        )


@dataclass(slots=True)
class Host:
    """The host, or with `root` an image of one below a directory, in which no service manager runs."""

    say: Callable[[str], None]
    dry_run: bool = False
    root: str = ""
    run: Callable[[Sequence[str]], subprocess.CompletedProcess[str]] = lambda command: subprocess.run(
        command, check=False, capture_output=True, text=True
    )

    def at(self, path: str) -> str:
        """A path of the host as it is reached from here."""
        return self.root + path

    def put(self, path: str, text: str, *, keep: bool = False) -> None:
        """Have a file with this text; with `keep` one that is there stays as it is."""
        old = _read(self.at(path))
        if old == text:
            self.say(f"unchanged  {path}")
        elif old is not None and keep:
            self.say(f"kept       {path}, which is yours")
        elif self._does("write", "wrote", path):
            with _refused(path):
                os.makedirs(os.path.dirname(self.at(path)), mode=0o755, exist_ok=True)
                temporary = f"{self.at(path)}.new"
                with open(temporary, "w", encoding="utf-8") as file:
                    file.write(text)
                os.chmod(temporary, 0o644)
                os.rename(temporary, self.at(path))

    def directory(self, path: str) -> None:
        """Have a directory."""
        if os.path.isdir(self.at(path)):
            self.say(f"unchanged  {path}/")
        elif self._does("make", "made", f"{path}/"):
            with _refused(path):
                os.makedirs(self.at(path), mode=0o755)

    def remove(self, path: str) -> None:
        """Have no such file, nor the directory `path` with all that is in it."""
        if not os.path.lexists(self.at(path)):
            self.say(f"not there  {path}")
        elif self._does("remove", "removed", path):
            with _refused(path):
                if os.path.isdir(self.at(path)) and not os.path.islink(self.at(path)):
                    shutil.rmtree(self.at(path))
                else:
                    os.unlink(self.at(path))

    def remove_empty(self, path: str) -> None:
        """Remove a directory if nothing is in it any more."""
        with contextlib.suppress(OSError):
            if not os.listdir(self.at(path)) and self._does("remove", "removed", f"{path}/, which is empty"):
                os.rmdir(self.at(path))

    def command(self, *command: str, fatal: bool = True) -> bool:
        """Run a command that changes the host. Raises ConfigError when it fails, unless that is not `fatal`."""
        if not self._does("run", "ran", " ".join(command)):
            return True
        done = self.ask(*command)
        if done is not None and done.returncode == 0:
            return True
        why = "there is no such program" if done is None else (done.stderr or done.stdout).strip()
        problem = f"{' '.join(command)}: {why or 'it failed'}"
        if fatal:
            raise ConfigError([problem])
        self.say(f"failed     {problem}")
        return False

    def ask(self, *command: str) -> subprocess.CompletedProcess[str] | None:
        """Run a command that only looks. None when there is no such program."""
        try:
            return self.run(command)
        except FileNotFoundError:
            return None

    def _does(self, would: str, did: str, what: str) -> bool:
        self.say(f"would {would:<6} {what}"[:500] if self.dry_run else f"{did:<10} {what}"[:500])
        return not self.dry_run


def systemd_version(host: Host) -> int:
    """The version of the host's systemd, 0 when there is none."""
    answer = host.ask("systemctl", "--version")
    words = answer.stdout.split() if answer else []
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


class _refused(contextlib.AbstractContextManager["_refused"]):
    """Turns what the file system refuses into a problem that says what to do."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            hint = "; a service of the host is root's to install, `--user` is not" if os.geteuid() else ""
            raise ConfigError([f"{self._path}: {error.strerror}{hint}"]) from None
