"""What serves: a real nginx for the bytes, an embedded Hub that redirects to it. All on loopback, all our own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from bench.cases import CAP_RATE, FAR_LATENCY_S, Face
from bench.data import Repo
from bench.ports import free_ports
from bench.relay import Relay
from tests.hub.process import HubProcess

START_S = 10.0
LOG_WAIT_S = 2.0  # nginx writes an answer's line when its last byte is handed to the kernel

# One server for each way of serving; `body_bytes_sent` of each answer is how bytes sent are counted. `auth_request`
# asks the waiting Hub first, whose answer takes 50 ms: nginx alone cannot wait.
_CONF = """
{user}
worker_processes auto;
daemon off;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 1024; }}
http {{
    log_format sent '$server_port $body_bytes_sent';
    access_log access.log sent;
    client_body_temp_path tmp; proxy_temp_path tmp; fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
    types {{ }}
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    root {www};
    server {{ listen 127.0.0.1:{plain}; }}
    server {{ listen 127.0.0.1:{tls} ssl; ssl_certificate cert.pem; ssl_certificate_key key.pem; }}
    upstream wait {{ server {wait}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{far};
        location / {{ auth_request /-wait; }}
        location = /-wait {{
            internal;
            proxy_pass http://wait/wait;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
            proxy_pass_request_body off;
            access_log off;
        }}
    }}
}}
"""


class Nginx:
    """An nginx with a configuration, directory, ports and certificate of its own, serving what lies below `www`."""

    def __init__(self, directory: str, www: str) -> None:
        self._directory = directory
        self.www = www
        self._stack = ExitStack()
        self._offset = 0
        self.ports: dict[str, int] = {}
        self.certificate = f"{directory}/cert.pem"

    @staticmethod
    def is_installed() -> bool:
        """Whether there is one to run."""
        return nginx_path() is not None and shutil.which("openssl") is not None

    def __enter__(self) -> Nginx:
        with self._stack:
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        os.makedirs(f"{self._directory}/tmp", exist_ok=True)
        make_certificate(self.certificate, f"{self._directory}/key.pem")
        waiter = self._stack.enter_context(HubProcess("--no-standard"))
        waiter.fault("hub/wait", latency_s=FAR_LATENCY_S, status=200)
        self.ports = dict(zip(("plain", "tls", "far"), free_ports(3), strict=True))
        wait = waiter.endpoint.removeprefix("http://")
        user = "user root;" if os.geteuid() == 0 else ""
        with open(f"{self._directory}/nginx.conf", "w", encoding="utf-8") as file:
            file.write(_CONF.format(user=user, www=self.www, wait=wait, **self.ports))
        log = f"{self._directory}/error.log"
        process = subprocess.Popen([nginx_path() or "nginx", "-p", self._directory, "-c", "nginx.conf", "-e", log])
        self._stack.callback(_end, process)
        deadline = time.monotonic() + START_S
        while not _listens(self.ports["far"]):
            if process.poll() is not None or time.monotonic() > deadline:
                with open(log, encoding="utf-8") as told:
                    raise RuntimeError(f"nginx did not start: {told.read()[-1000:]}")
            time.sleep(0.01)

    def forget(self) -> None:
        """Count from here."""
        self._offset = os.path.getsize(f"{self._directory}/access.log")

    def sent_bytes(self, least: int) -> int:
        """Body bytes sent since `forget`; waits a moment for the lines of the last answers, until `least` are there."""
        deadline = time.monotonic() + LOG_WAIT_S
        while True:
            with open(f"{self._directory}/access.log", "rb") as log:
                log.seek(self._offset)
                sent = sum(int(line.split()[1]) for line in log.read().splitlines() if line.count(b" ") == 1)
            if sent >= least or time.monotonic() > deadline:
                return sent
            time.sleep(0.01)


@dataclass(frozen=True)
class Served:
    """Where the tools find things. `base` is a URL with the files below `/{repo}/{name}`, None without nginx."""

    endpoint: str
    base: str | None
    certificate: str | None
    relay: Relay | None
    hub: HubProcess


@contextmanager
def serve(face: Face, repos: Iterable[Repo], www: str, nginx: Nginx | None) -> Iterator[Served]:
    """Serve the repositories in that way: the embedded Hub, and behind its redirects nginx.

    Without an nginx the embedded Hub sends the bytes itself, with the same cap and latency.
    """
    with ExitStack() as stack:
        arguments = ["--no-standard"]
        for repo in repos:
            arguments += ["--repo", f"{repo.id}={www}/{repo.id}"]
        base, relay = None, None
        if nginx is not None:
            port = nginx.ports["tls" if face is Face.TLS else "far" if face is Face.FAR else "plain"]
            if rate := CAP_RATE.get(face):
                relay = stack.enter_context(Relay(("127.0.0.1", port), rate))
                port = relay.port
            base = f"{'https' if face is Face.TLS else 'http'}://127.0.0.1:{port}"
            arguments += ["--cdn-base", base]
        hub = stack.enter_context(HubProcess(*arguments))
        latency = FAR_LATENCY_S if face is Face.FAR else 0.0
        if latency:
            hub.fault("hub/*", latency_s=latency)
        if nginx is None and face in CAP_RATE:
            hub.fault("cdn/*", latency_s=latency, max_rate=CAP_RATE[face])
        yield Served(hub.endpoint, base, nginx.certificate if nginx else None, relay, hub)


def make_certificate(certificate: str, key: str) -> None:
    """A certificate for 127.0.0.1 that is its own authority."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)


def nginx_path() -> str | None:
    """Debian keeps it where only root's PATH leads."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()
