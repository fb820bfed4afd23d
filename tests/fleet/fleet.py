"""A fleet on one machine: each host a network namespace with a real nginx and a real agent, the origin in our own.

    origin  10.99.0.254 on the bridge:  :80 the Hub, :8000 its storage, through an nginx that counts the bytes
    hosts   10.99.0.1 and on:           nginx with the configuration that `wantd fleet nginx` prints, as it is

The configuration names places like /var/lib/nginx. Each host has a mount namespace of its own, where directories of the
test stand in those places.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.harness import CHECKOUT, AgentProcess, clean_environment, wait_until
from tests.hub.process import HubProcess

BRIDGE, CABLE, NET = "wantd-br", "wantd-c", "10.99.0"
ORIGIN = f"{NET}.254"
MIB = 1024 * 1024
PLACES = ("/var/lib/nginx", "/var/log/nginx", "/run")
NEEDED = ("ip", "tc", "nginx", "openssl")

_FRONT = """
user root;
worker_processes 2;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    log_format sent '$server_port $request_method $status $body_bytes_sent "$http_authorization" $request_uri';
    access_log {directory}/access.log sent;
    client_body_temp_path {directory}/tmp; proxy_temp_path {directory}/tmp; fastcgi_temp_path {directory}/tmp;
    uwsgi_temp_path {directory}/tmp; scgi_temp_path {directory}/tmp;
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_set_header Host $http_host;
    proxy_set_header Connection "";
    keepalive_requests 100000;
    server {{
        listen {origin}:80;
        location / {{ proxy_pass {hub}; proxy_redirect {cdn} http://{origin}:8000; }}
    }}
    server {{
        listen {origin}:8000;
        {cdn_location}
    }}
}}
"""


def sh(*command: str) -> str:
    """Run a command. Raises with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
    return done.stdout


class Host:
    """One member: its namespace, nginx and agent."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.fleet = fleet
        self.name, self.address, self.namespace = f"gpu-{number}", f"{NET}.{number}", f"wantd-gpu-{number}"
        self.root = fleet.root / self.name
        self.root.mkdir(mode=0o755)
        self._nginx: subprocess.Popen[bytes] | None = None
        self.agent = AgentProcess(
            self.root / "agent",
            f"http://{ORIGIN}",
            fleet__url="http://127.0.0.1:8100",
            fleet__patience_s="1",
            policy__allow="any",
            adopt__caches="none",
        )
        self.agent.prefix = self.within

    @property
    def cable(self) -> str:
        """The end of its cable that is at the bridge."""
        return f"{CABLE}{self.name[4:]}"

    @property
    def within(self) -> list[str]:
        """What runs a command on this host."""
        return ["ip", "netns", "exec", self.namespace]

    def create(self) -> None:
        """The namespace, and a cable to the bridge."""
        sh("ip", "netns", "add", self.namespace)
        sh("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        sh("ip", "link", "set", self.cable, "master", BRIDGE, "up")
        for command in (f"addr add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            sh("ip", "-n", self.namespace, *command.split())

    def limit(self, mbit: int) -> None:
        """Cap what this host may send and receive."""
        tbf = f"root tbf rate {mbit}mbit burst 256kb latency 200ms".split()
        sh(*self.within, "tc", "qdisc", "replace", "dev", "eth0", *tbf)
        sh("tc", "qdisc", "replace", "dev", self.cable, *tbf)

    def start_nginx(self) -> None:
        """With the configuration that wantd prints, not a letter changed."""
        for number in range(len(PLACES)):
            (self.root / f"place{number}").mkdir(exist_ok=True)
        config = self.root / "nginx.conf"
        config.write_text(self.fleet.configuration(self.name))
        mounts = [f"mount --bind {self.root}/place{number} {place}" for number, place in enumerate(PLACES)]
        script = "; ".join(["set -e", *mounts, f"exec nginx -c {config} -g 'daemon off;'"])
        log = (self.root / "nginx.log").open("ab")
        self._nginx = subprocess.Popen([*self.within, "sh", "-c", script], stdout=log, stderr=log)
        log.close()
        wait_until(self.has_door, f"the door of {self.name}")

    def has_door(self) -> bool:
        assert self._nginx and self._nginx.poll() is None, (self.root / "nginx.log").read_text()
        return "127.0.0.1:8100" in sh(*self.within, "ss", "-Hltn")

    def kill_nginx(self) -> None:
        """SIGKILL to all of its processes."""
        assert self._nginx
        for pid in self.nginx_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._nginx.wait()

    def nginx_pids(self) -> list[int]:
        """Its processes."""
        pids = sh("ip", "netns", "pids", self.namespace).split()
        return [int(pid) for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == "nginx"]

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this host, in the checkout."""
        return subprocess.run(
            [*self.within, *command],
            env=clean_environment(HOME=str(self.root), **environ),
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def cache(self) -> Path:
        """Where its nginx keeps slices."""
        return self.root / "place0" / "wantd-slices"

    def destroy(self) -> None:
        """Everything of it."""
        with contextlib.suppress(Exception):
            self.agent.__exit__()
        for pid in sh("ip", "netns", "pids", self.namespace).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if self._nginx:
            self._nginx.wait()
        subprocess.run(["ip", "netns", "del", self.namespace], check=False)
        subprocess.run(["ip", "link", "del", self.cable], check=False, capture_output=True)  # at once, not in a while


class Fleet:
    """`count` hosts and an origin that has what the Hub's arguments say. `with` makes it and takes it away."""

    def __init__(self, root: Path, count: int, *hub: str, tls: bool = False, www: Path | None = None) -> None:
        if missing := [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]:
            raise RuntimeError(f"not installed: {', '.join(missing)}; see .ci/run for the packages")
        if os.geteuid():
            raise RuntimeError("only root can make network namespaces: sudo make test-fleet")
        self.root = root
        root.chmod(0o755)
        self.tls_dir = root / "tls" if tls else None
        self._www = www
        more = ("--cdn-base", f"http://{ORIGIN}:8000") if www else ()
        self.hub = HubProcess("--page-size", "1000", *hub, *more)
        self.hosts = [Host(self, number) for number in range(1, count + 1)]
        self.list = root / "hosts"
        self.list.write_text("".join(f"{host.name} {host.address}  # rack 1\n" for host in self.hosts))
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Fleet:
        with contextlib.ExitStack() as stack:
            remove_leftovers()
            sh("ip", "link", "add", BRIDGE, "type", "bridge")
            stack.callback(sh, "ip", "link", "del", BRIDGE)
            sh("ip", "addr", "add", f"{ORIGIN}/24", "dev", BRIDGE)
            sh("ip", "link", "set", BRIDGE, "up")
            stack.enter_context(self.hub)
            self._start_front(stack)
            if self.tls_dir:
                self._certify(self.tls_dir)
            for host in self.hosts:
                stack.callback(host.destroy)
                host.create()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def configuration(self, name: str) -> str:
        """What `wantd fleet nginx` prints for a host."""
        command = [sys.executable, "-m", "agent", "fleet", "nginx", "--hosts", str(self.list), "--self", name]
        command += ["--endpoint", f"http://{ORIGIN}", "--storage", f"{ORIGIN}:8000"]
        command += ["--tls-dir", str(self.tls_dir)] if self.tls_dir else []
        done = subprocess.run(
            command, env=clean_environment(), cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *, agents: bool = True) -> None:
        """Every nginx, then every agent."""
        for host in self.hosts:
            host.start_nginx()
        if agents:
            for host in self.hosts:
                host.agent.start()

    def requests(self) -> Iterator[tuple[int, str, int, int, str, str]]:
        """What came to the origin: port, method, status, bytes of the body, authorization, and the URI."""
        for line in (self.root / "origin" / "access.log").read_text().splitlines():
            head, token, uri = line.split('"')
            port, method, status, sent = head.split()
            yield int(port), method, int(status), int(sent), token, uri.strip()

    def storage_bytes(self) -> int:
        """Bytes that the storage has sent."""
        return sum(sent for port, _, _, sent, _, _ in self.requests() if port == 8000)

    def asked_hub(self, part: str) -> list[str]:
        """Requests to the Hub with this in their path: method and URI."""
        return [f"{method} {uri}" for port, method, _, _, _, uri in self.requests() if port == 80 and part in uri]

    def curl(self, url: str) -> str:
        """The status that the origin, which is no member, gets there."""
        asked = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout

    def _start_front(self, stack: contextlib.ExitStack) -> None:
        directory = self.root / "origin"
        (directory / "tmp").mkdir(parents=True)
        cdn = (self._www and f"root {self._www};") or f"location / {{ proxy_pass {self.hub.cdn}; }}"
        (directory / "nginx.conf").write_text(
            _FRONT.format(directory=directory, origin=ORIGIN, hub=self.hub.endpoint, cdn=self.hub.cdn, cdn_location=cdn)
        )
        log = (directory / "nginx.log").open("ab")
        process = subprocess.Popen(["nginx", "-c", str(directory / "nginx.conf")], stdout=log, stderr=log)
        log.close()

        def stop() -> None:
            process.terminate()
            process.wait()

        stack.callback(stop)
        wait_until(lambda: f"{ORIGIN}:8000" in sh("ss", "-Hltn"), "the origin listens")
        assert process.poll() is None, (directory / "nginx.log").read_text()

    def _certify(self, directory: Path) -> None:
        """An authority of the fleet, and one certificate for all of the test's hosts, as docs/fleet.md makes them."""
        directory.mkdir(mode=0o755)
        make_certificates(directory)


def make_certificates(directory: Path) -> None:
    """ca.pem, cert.pem and key.pem."""
    for command in (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=fleet"
        " -keyout ca.key -out ca.pem",
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=wantd-fleet"
        " -keyout key.pem -out member.csr",
    ):
        subprocess.run(command.split(), cwd=directory, check=True, capture_output=True)
    (directory / "names").write_text("subjectAltName=DNS:wantd-fleet\n")
    signs = "openssl x509 -req -in member.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 365 -extfile names"
    subprocess.run([*signs.split(), "-out", "cert.pem"], cwd=directory, check=True, capture_output=True)


def remove_leftovers() -> None:
    """What a run that was killed left behind."""
    for line in sh("ip", "netns", "list").splitlines():
        if (name := line.split()[0]).startswith("wantd-gpu-"):
            for pid in sh("ip", "netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            sh("ip", "netns", "del", name)
    for line in sh("ip", "-br", "link").splitlines():
        if line.startswith((BRIDGE, CABLE)):
            subprocess.run(["ip", "link", "del", line.split("@")[0].split()[0]], check=False, capture_output=True)
