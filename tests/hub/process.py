"""Start a Hub as a process of its own and talk to its control face, from plain synchronous code."""

from __future__ import annotations

import base64
import http.client
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

START_TIMEOUT_S = 60.0  # a loaded two-core machine, with models of some hundred MB to make
CONTROL_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0


class HubProcess:
    """`with HubProcess("--page-size", "50") as hub: … hub.endpoint …`. Ends with this process, however that ends.

    Arguments are those of `python -m tests.hub`. Raises RuntimeError when the Hub does not start.
    """

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self.endpoint = self.cdn = self._control = ""

    def __enter__(self) -> HubProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it listens."""
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub", "--with-stdin", *self._arguments],
            stdin=subprocess.PIPE,  # its end tells the Hub that this process is gone
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        ready = self._first_line(time.monotonic() + START_TIMEOUT_S)
        if not ready:
            self.stop()
            raise RuntimeError(f"the Hub did not start, exit status {self._process.returncode}")
        urls = json.loads(ready)
        self.endpoint, self.cdn, self._control = urls["endpoint"], urls["cdn"], urls["control"]

    def _first_line(self, deadline: float) -> bytes:
        output = self._process.stdout
        if output is None:
            return b""
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not line.endswith(b"\n") and selector.select(max(0.0, deadline - time.monotonic())):
                piece = os.read(output.fileno(), 4096)
                if not piece:
                    return b""
                line += piece
        return line if line.endswith(b"\n") else b""

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()

    def control(self, what: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request to the control face. Raises RuntimeError with the Hub's words when it refuses."""
        connection = http.client.HTTPConnection(urlsplit(self._control).netloc, timeout=CONTROL_TIMEOUT_S)
        try:
            body = None if values is None else json.dumps(values)
            connection.request("GET" if values is None else "POST", f"/{what}", body)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"the Hub refused {what}: {answer}")
        return answer

    def stats(self) -> dict[str, Any]:
        """The ledger: `bytes_sent` and `requests` by `repo/file`, `recent`, `seen_tokens`, `most_open_bodies`."""
        return self.control("stats")

    def reset(self) -> None:
        """Forget the ledger."""
        self.control("reset", {})

    def repos(self) -> dict[str, Any]:
        """Repositories with refs and the files of `main`: size, sha256, etag, lfs."""
        return self.control("repos")

    def fault(self, glob: str, **switches: Any) -> None:
        """Put a rule in force; switches are the fields of `Faults`."""
        self.control("faults", {"glob": glob, "faults": switches})

    def clear_faults(self, glob: str | None = None) -> None:
        """Take back one rule, or all."""
        self.control("clear", {"glob": glob})

    def configure(self, **options: Any) -> None:
        """Change options of the running Hub; names are the fields of `Options`."""
        self.control("options", options)

    def restore_options(self) -> None:
        """Take back what `configure` changed."""
        self.control("restore", {})

    def expire_urls(self) -> None:
        """Make every signed URL given out so far worthless."""
        self.control("expire", {})

    def commit(self, repo: str, files: Mapping[str, bytes], ref: str = "main") -> str:
        """Commit exactly these files, making the repository if need be; returns the commit's id."""
        encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
        answer: str = self.control("commit", {"repo": repo, "ref": ref, "files": encoded})["commit"]
        return answer
