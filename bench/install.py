"""Gets the peers: curl, aria2 and nginx from Debian, huggingface_hub from PyPI in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from bench.servers import nginx_path
from bench.tools import ROOT

PEERS = f"{ROOT}/bench/.peers"


@dataclass(frozen=True)
class Peers:
    """Paths of the peers' commands; None for one that is not there."""

    curl: str | None
    aria2: str | None
    hf: str | None


def present() -> Peers:
    """What is installed already; `hf` is the one beside this Python."""
    hf = os.path.join(os.path.dirname(sys.executable), "hf")
    return Peers(shutil.which("curl"), shutil.which("aria2c"), hf if os.path.exists(hf) else shutil.which("hf"))


def install() -> Peers:
    """Install what is missing. Raises SystemExit, saying what to install, where that takes root and we are not."""
    wanted = {"curl": shutil.which("curl"), "aria2": shutil.which("aria2c"), "nginx": nginx_path()}
    wanted["openssl"] = shutil.which("openssl")
    missing = [name for name, path in wanted.items() if path is None]
    if missing:
        if os.geteuid() or shutil.which("apt-get") is None:
            raise SystemExit(f"the benchmark needs {', '.join(missing)}: apt-get install {' '.join(missing)}")
        print(f"installing {', '.join(missing)} from Debian", flush=True)
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=environ)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(command, check=True, env=environ)
    return Peers(shutil.which("curl"), shutil.which("aria2c"), _hf())


def _hf() -> str:
    python, hf = f"{PEERS}/venv/bin/python", f"{PEERS}/venv/bin/hf"
    if not os.path.exists(hf):
        print("installing huggingface_hub from PyPI into bench/.peers", flush=True)
        subprocess.run([sys.executable, "-m", "venv", f"{PEERS}/venv"], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--upgrade", "huggingface_hub"], check=True)
    return hf


def versions(peers: Peers) -> list[str]:
    """Names and versions of all that take part, for the report."""
    lines = [f"wantd of this checkout, Python {sys.version.split()[0]}"]
    if peers.hf:
        says = "import importlib.metadata as m; print('huggingface_hub', m.version('huggingface_hub'))"
        lines.append(_first_line([f"{os.path.dirname(peers.hf)}/python", "-c", says]))
    lines += [_first_line([command, "--version"]) for command in (peers.aria2, peers.curl) if command]
    if path := nginx_path():
        lines.append(_first_line([path, "-v"]).removeprefix("nginx version: "))
    return lines


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text = (done.stdout.strip() or done.stderr.strip()).splitlines()[0]
    return " ".join(text.split("(")[0].split()[:3])
