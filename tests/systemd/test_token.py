"""The Hub token comes as a credential, and is nowhere else."""

from __future__ import annotations

import hashlib
import subprocess

from tests.hub.process import HubProcess
from tests.systemd.conftest import SPOOL, configure
from tests.systemd.machine import Machine

TOKEN = "hf_" + "tOkEnOfThIsTeSt" * 2


def test_the_token_comes_through_the_credential_and_is_nowhere_else(installed: Machine, hub: HubProcess) -> None:
    installed.shell(f"install -d -m 700 /etc/credstore && umask 077 && printf %s {TOKEN} > /etc/credstore/hf_token")
    configure(installed, hub, '[policy]\nallow = "any"\n[log]\nlevel = "TRACE"')
    installed.systemctl("start", "wantd")
    installed.shell(f"echo wantd/private > {SPOOL}/p.want; echo wantd/gated > {SPOOL}/g.want", user="alice")
    installed.wait(f"{SPOOL}/p.want", "ready", "failed")
    installed.wait(f"{SPOOL}/g.want", "ready", "failed")
    assert hashlib.sha256(TOKEN.encode()).hexdigest() in str(hub.stats()["seen_tokens"]), "the Hub did not see it"
    pid = installed.show("wantd", "MainPID")["MainPID"]
    installed.systemctl("kill", "--signal=ABRT", "wantd")  # what the watchdog does: a trace, and no core file
    installed.run("journalctl", "--sync")
    for command in (
        ("systemctl", "show", "wantd"),
        ("systemctl", "cat", "wantd"),
        ("systemctl", "status", "wantd"),
        ("journalctl", "--no-pager", "--output=export"),
    ):
        assert TOKEN not in installed.run(*command, check=False).stdout, command
    assert "Fatal Python error: Aborted" in installed.journal("-u", "wantd", f"_PID={pid}")
    installed.systemctl("start", "wantd")
    pid = installed.show("wantd", "MainPID")["MainPID"]
    assert TOKEN not in (installed.read(f"/proc/{pid}/environ") or "")
    assert TOKEN not in (installed.read(f"/proc/{pid}/cmdline") or "")
    search = ["grep", "-rlF", "--binary-files=text", "--devices=skip", TOKEN]
    written = subprocess.run([*search, "."], cwd=installed.written, capture_output=True, text=True, check=False)
    assert written.stdout.split() == ["./etc/credstore/hf_token"]
    volatile = installed.run(*search, "/run", "/tmp", "/dev/shm", check=False).stdout.split()
    assert volatile == ["/run/credentials/wantd.service/hf_token"]
    mode = installed.run("stat", "-c", "%a", "/run/credentials/wantd.service/hf_token").stdout.strip()
    assert mode in ("400", "440"), mode
    assert installed.run("cat", "/run/credentials/wantd.service/hf_token", user="alice", check=False).returncode
