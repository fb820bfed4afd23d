"""`wantd fleet nginx`: the configuration of one member of a fleet. `wantd fleet check`: whether the fleet works."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import socket
import sys

from agent.config import load, process_environment
from agent.errors import ConfigError, Exit
from agent.fleet.check import check
from agent.fleet.hosts import Member, parse_hosts
from agent.fleet.nginx import DOOR, STORAGE, Ring, render

RESOLV_CONF = "/etc/resolv.conf"
EXAMPLES = """\
examples:
  wantd fleet nginx --tls-dir /etc/wantd/fleet
  wantd fleet nginx --hosts hosts --self gpu-1 --max-size 500g
  wantd fleet check --tls-dir /etc/wantd/fleet
"""
HOSTS = "/etc/wantd/hosts"
CACHE = "/var/lib/nginx"  # nginx makes a directory for its cache, but not the one above it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two subcommands; both read the same list of hosts."""
    does = parser.add_subparsers(dest="does", metavar="nginx|check", required=True)
    hosts = argparse.ArgumentParser(add_help=False)
    hosts.add_argument("--hosts", metavar="FILE", default=HOSTS, help=f"all hosts, NAME ADDRESS a line ({HOSTS})")
    hosts.add_argument("--tls-dir", metavar="DIR", default="", help="ca.pem, cert.pem, key.pem: TLS among members")
    nginx = does.add_parser("nginx", parents=[hosts], help="print the configuration of nginx for one host")
    nginx.add_argument(
        "--self", dest="self_name", metavar="NAME", help="which of the hosts this one is (its host name)"
    )
    nginx.add_argument("--slice", default="1m", help="bytes of the pieces that are kept; fleet.slice_bytes (1m)")
    nginx.add_argument("--cache", metavar="DIR", default=CACHE, help=f"directory of the cache ({CACHE})")
    nginx.add_argument("--max-size", metavar="SIZE", default="100g", help="largest size of the cache (100g)")
    nginx.add_argument("--endpoint", metavar="URL", help="the Hub, or a mirror (hub.endpoint of the configuration)")
    nginx.add_argument(
        "--storage",
        metavar="DOMAIN",
        action="append",
        help=f"where the Hub may redirect to, itself and all below it; may be given again ({', '.join(STORAGE)})",
    )
    nginx.add_argument("--resolver", metavar="ADDRESS", action="append", help=f"name servers (those of {RESOLV_CONF})")
    looks = does.add_parser("check", parents=[hosts], help="ask the door and every member, and look at certificates")
    looks.add_argument("--door", metavar="URL", default=f"http://127.0.0.1:{DOOR}", help="this host's door")


def call(arguments: argparse.Namespace) -> int:
    """Print the configuration, or the findings. Raises ConfigError for a list or an option that cannot be used."""
    members = _members(arguments.hosts)
    if arguments.does == "check":
        findings = check(members, arguments.door, arguments.tls_dir)
        for finding in findings:
            print(finding)
        return Exit.OK if all(finding.is_good for finding in findings) else Exit.FAILURE
    config = load(arguments.config, process_environment())
    ring = Ring(
        endpoint=(arguments.endpoint or config.hub.endpoint).rstrip("/"),
        cache=arguments.cache,
        slice_size=arguments.slice,
        max_size=arguments.max_size,
        tls_dir=arguments.tls_dir,
        storage=tuple(arguments.storage or STORAGE),
        resolvers=tuple(arguments.resolver or _resolvers()),
        command=shlex.join(["wantd", *sys.argv[1:]]).replace("\n", " "),
    )
    sys.stdout.write(render(members, arguments.self_name or socket.gethostname(), ring))
    if not ring.tls_dir:
        print("wantd: without --tls-dir members talk in the clear: for a network of your own only", file=sys.stderr)
    return Exit.OK


def _members(path: str) -> list[Member]:
    try:
        with open(path, encoding="utf-8") as file:
            return parse_hosts(file.read(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"--hosts {path}: {error}"]) from None


def _resolvers() -> list[str]:
    """The name servers of this host, up to three as resolv.conf(5) has it."""
    found: list[str] = []
    if os.path.exists(RESOLV_CONF):
        with open(RESOLV_CONF, encoding="utf-8", errors="replace") as file:
            found = re.findall(r"(?m)^nameserver\s+([0-9A-Fa-f:.]+)", file.read())
    return found[:3] or ["127.0.0.53"]
