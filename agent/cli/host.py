"""Changes to the host, each reported as it is made: shared by `install-service` and `uninstall-service`.

Every change is made only where it is needed, so both commands can be repeated. With `dry_run` none is made.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.disk import Sync, atomic_write
from agent.errors import ConfigError

EXECUTABLE = "/opt/wantd/bin/wantd"  # in the shipped units, replaced by the path of the installed program
BACKOFF_SINCE = 254  # the first systemd with RestartSteps=
USER = "wantd"
PRODUCERS = "wantd-producers"


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything goes. `systemctl` begins a command line; `shipped` is the directory of the shipped files."""

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
        """For a service of the host. `/usr/local/lib` is ours; `/etc` is the operator's, and overrides it."""
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
        """For a service of the user who runs the command."""
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
    """The host, or with `root` an image of one below a directory, in which no service manager runs.

    `problems` are what a dry run found that would make the real one fail.
    """

    say: Callable[[str], None]
    dry_run: bool = False
    root: str = ""
    problems: list[str] = field(default_factory=list)
    run: Callable[[Sequence[str]], subprocess.CompletedProcess[str]] = lambda command: subprocess.run(
        command, check=False, capture_output=True, text=True
    )

    def at(self, path: str) -> str:
        """The path below `root` of a path on the host."""
        return self.root + path

    def put(self, path: str, text: str, *, keep: bool = False) -> None:
        """Write a file, readable by every user. With `keep`, an existing file stays as it is."""
        old = _read(self.at(path))
        if old == text:
            self.say(f"unchanged  {path}")
        elif old is not None and keep:
            self.say(f"kept       {path} (yours)")
        elif self._does("write", "wrote", path):
            with _problems(path):
                os.makedirs(os.path.dirname(self.at(path)), mode=0o755, exist_ok=True)
                # Exact: systemd and the agent's user have to read it, whatever umask root has.
                atomic_write(self.at(path), text.encode(), mode=0o644, exact_mode=True, sync=Sync.DIRECTORY)

    def directory(self, path: str) -> None:
        """Create a directory."""
        if os.path.isdir(self.at(path)):
            self.say(f"unchanged  {path}/")
        elif self._does("make", "made", f"{path}/"):
            with _problems(path):
                os.makedirs(self.at(path), mode=0o755)

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with everything in it."""
        if not os.path.lexists(self.at(path)):
            self.say(f"not there  {path}")
        elif self._does("remove", "removed", path):
            with _problems(path):
                if os.path.isdir(self.at(path)) and not os.path.islink(self.at(path)):
                    shutil.rmtree(self.at(path))
                else:
                    os.unlink(self.at(path))

    def remove_empty(self, path: str) -> None:
        """Remove a directory if it is empty."""
        with contextlib.suppress(OSError):
            if not os.listdir(self.at(path)) and self._does("remove", "removed", f"{path}/ (empty)"):
                os.rmdir(self.at(path))

    def command(self, *command: str, fatal: bool = True) -> bool:
        """Run a command that changes the host; True when it succeeds. A failure raises ConfigError if `fatal`."""
        if not self._does("run", "ran", " ".join(command)):
            return True
        done = self.ask(*command)
        if done is not None and done.returncode == 0:
            return True
        why = "program not found" if done is None else (done.stderr or done.stdout).strip()
        problem = f"{' '.join(command)}: {why or 'failed'}"
        if fatal:
            raise ConfigError([problem])
        self.say(f"failed     {problem}")
        return False

    def ask(self, *command: str) -> subprocess.CompletedProcess[str] | None:
        """Run a command that changes nothing. None when there is no such program."""
        try:
            return self.run(command)
        except FileNotFoundError:
            return None

    def _does(self, would: str, did: str, what: str) -> bool:
        self.say(f"would {would:<6} {what}"[:500] if self.dry_run else f"{did:<10} {what}"[:500])
        return not self.dry_run


def systemd_version(host: Host) -> int:
    """The version of the host's systemd, 0 when there is none."""
    done = host.ask("systemctl", "--version")
    words = done.stdout.split() if done else []
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else 0


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


@contextlib.contextmanager
def _problems(path: str) -> Iterator[None]:
    """Report an OSError of the block as a ConfigError that names `path` and what to do."""
    try:
        yield
    except OSError as error:
        hint = "; run as root, or add --user to install a service for yourself" if os.geteuid() else ""
        raise ConfigError([f"cannot change {path}: {error.strerror}{hint}"]) from None
