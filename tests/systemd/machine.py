"""A real systemd, booted in a container over this machine's own file system; nothing of it outlives the tests.

Mounts and processes live in name spaces that die with their first process, and that one is killed when the process
that runs the tests ends, however it ends. So a broken run leaves nothing behind either.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.harness import CHECKOUT, DEADLINE_S, wait_until

# All that is written goes to a tmpfs. Services that this machine happens to start are no concern of the tests.
BOOT = """
mount -t tmpfs -o mode=755 tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
rm -rf "$0"/root/etc/systemd/system/*.wants "$0/root/var/log/journal"
mkdir "$0/root/var/log/journal"
exec systemd-nspawn --quiet --register=no --keep-unit --boot --console=pipe --resolv-conf=off --timezone=off \\
    --hostname=gpu-7 -D "$0/root"
"""
NEEDED = ("systemd-nspawn", "nsenter", "unshare", "setpriv", "dbus-daemon")


class Machine:
    """One booted container, which shares the network of this machine: its loopback is ours."""

    def __init__(self, directory: Path) -> None:
        if missing := [name for name in NEEDED if shutil.which(name) is None]:
            raise RuntimeError(f"not installed: {', '.join(missing)}; see .ci/run for the packages")
        if os.geteuid():
            raise RuntimeError("only root can boot a systemd: sudo make test-systemd")
        self._directory = directory
        self._log = (directory / "boot.log").open("w+b")
        mounts = directory / "mounts"
        mounts.mkdir()
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
        command += ["--pid", "--fork", "--kill-child", "sh", "-ec", BOOT, str(mounts)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        self.pid = 0
        try:
            self.pid = wait_until(self._find_systemd, "systemd is started")
            wait_until(self._has_booted, "systemd has booted")
        except BaseException:
            self.stop()
            raise

    def _find_systemd(self) -> int | None:
        if self._process.poll() is not None:
            raise AssertionError(f"the container did not start:\n{self.boot_log()}")
        pending = [self._process.pid]
        while pending:
            pid = pending.pop()
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
                pending += _children(pid)
            except OSError:
                continue
            if command.endswith(b"/systemd/systemd"):
                return pid
        return None

    def _has_booted(self) -> bool:
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    @property
    def written(self) -> str:
        """The directory with everything that was written in the container, but for its own tmpfs."""
        (inner,) = _children(self._process.pid)
        return f"/proc/{inner}/root{self._directory}/mounts/upper"

    def boot_log(self) -> str:
        """What the console said."""
        return (self._directory / "boot.log").read_text(errors="replace")[-5000:]

    def stop(self) -> None:
        """End it; the name spaces take mounts and processes with them."""
        for pid in _children(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            self._process.wait(DEADLINE_S)  # it ends when the first process of its name spaces has
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def run(
        self, *command: str, check: bool = True, user: str | None = None, timeout: float = DEADLINE_S, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or as one of its users."""
        if user:
            command = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command)
            environ = {"HOME": f"/home/{user}", "USER": user, **environ}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-a", "-r", "-w", "--", *command],
            env={"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "SYSTEMD_COLORS": "0", **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{shlex.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def shell(self, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a script of sh inside."""
        return self.run("sh", "-c", script, **options)

    def read(self, path: str) -> str | None:
        """A file of the container, or None."""
        done = self.run("cat", path, check=False)
        return done.stdout if done.returncode == 0 else None

    def write(self, path: str, text: str) -> None:
        """Write a file as root."""
        self.shell(f"mkdir -p {shlex.quote(os.path.dirname(path))} && cat > {shlex.quote(path)} <<'EOF'\n{text}\nEOF")

    def show(self, unit: str, *names: str, user: str | None = None) -> dict[str, str]:
        """Properties of a unit, all of them when none are named."""
        wanted = ["-p", ",".join(names)] if names else []
        done = self.systemctl("show", unit, *wanted, user=user)
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def systemctl(
        self, *arguments: str, user: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`systemctl`, of the machine or of one of its users."""
        if user is None:
            return self.run("systemctl", *arguments, check=check)
        uid = self.run("id", "-u", user).stdout.strip()
        return self.run("systemctl", "--user", *arguments, user=user, check=check, XDG_RUNTIME_DIR=f"/run/user/{uid}")

    def journal(self, *matches: str) -> str:
        """Lines of the journal."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "--output=cat", *matches).stdout

    def events(self, *matches: str) -> list[dict[str, Any]]:
        """Events of the journal with all their fields."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--no-pager", "--output=json", *matches).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def progress(self, path: str) -> dict[str, Any] | None:
        """The answer to the want of this path."""
        text = self.read(path.removesuffix(".want") + ".progress")
        return json.loads(text) if text else None

    def wait(self, path: str, *states: str, done: int = 0) -> dict[str, Any]:
        """Wait until the want is in one of the states, with at least so many bytes done."""
        seen: list[Any] = [None]

        def there() -> dict[str, Any] | None:
            answer = seen[0] = self.progress(path)
            return answer if answer and answer["state"] in states and answer["bytes_done"] >= done else None

        try:
            answer: dict[str, Any] = wait_until(there, f"{path} {states}")
        except AssertionError as error:
            raise AssertionError(f"{error}; its answer is {seen[0]}; {self.journal('-n', '60')}") from None
        return answer


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def build_wheel(directory: Path, version: str | None = None) -> Path:
    """The package as a user would get it; `version` in place of its own."""
    source = copy_source(directory, version)
    wheels = directory / f"wheel-{version}"
    _quietly([sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", str(wheels), str(source)])
    return next(wheels.glob("*.whl"))


def copy_source(directory: Path, version: str | None) -> Path:
    """What a package is made of, with `version` in place of its own."""
    source = directory / f"source-{version}"
    source.mkdir()
    for name in ("agent", "config", "systemd", "man"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "supported_models.json"):
        shutil.copy(CHECKOUT / name, source / name)
    if version:
        init = source / "agent" / "__init__.py"
        lines = init.read_text().splitlines()
        init.write_text("\n".join(f'__version__ = "{version}"' if _is_version(line) else line for line in lines) + "\n")
    return source


def _is_version(line: str) -> bool:
    return line.startswith("__version__ =")


def _quietly(command: Iterable[str]) -> None:
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
