"""`python -m tests.hub`: an instrumented Hub as a process of its own. Prints one JSON line when it is ready."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile

from agent.embedded_hub.repo import Repo
from tests.hub.server import InstrumentedHub
from tests.hub.standard import standard_repos


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the Hub's port on 127.0.0.1 (any free one)")
    parser.add_argument("--cdn-port", type=int, default=0, help="the storage's port, also on 127.0.0.1")
    parser.add_argument("--cdn-base", help="URL of another server that serves /ORG/NAME/FILE in the storage's place")
    parser.add_argument("--page-size", type=int, default=1000, help="entries of one page of a tree")
    parser.add_argument("--url-lifetime", type=float, default=3600.0, help="of signed URLs, seconds")
    parser.add_argument("--api-quota", type=int, default=1_000_000, help="API requests in a window")
    parser.add_argument("--resolve-quota", type=int, default=1_000_000, help="resolve requests in a window")
    parser.add_argument("--window", type=float, default=300.0, help="of the quotas, seconds")
    parser.add_argument("--repo", action="append", default=[], metavar="ID=DIR", help="serve a directory as a repo")
    parser.add_argument("--no-standard", action="store_true", help="without the standard repositories")
    parser.add_argument("--size", type=int, default=24 * 1024, help="bytes of a standard model, about")
    parser.add_argument("--gguf-size", type=int, help="bytes of the qwen3 GGUF, about")
    parser.add_argument("--many", type=int, default=1200, help="files of wantd/many")
    parser.add_argument("--with-stdin", action="store_true", help="end when standard input does, as with a parent")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace, directory: str) -> None:
    repos = [Repo.from_directory(*pair.split("=", 1)) for pair in arguments.repo]
    if not arguments.no_standard:
        sizes = {"size": arguments.size, "gguf_size": arguments.gguf_size, "many": arguments.many}
        repos = standard_repos(**sizes, directory=directory) + repos
    hub = InstrumentedHub(
        repos,
        port=arguments.port,
        cdn_port=arguments.cdn_port,
        cdn_base=arguments.cdn_base,
        page_size=arguments.page_size,
        url_lifetime_s=arguments.url_lifetime,
        api_quota=arguments.api_quota,
        resolve_quota=arguments.resolve_quota,
        window_s=arguments.window,
    )
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    if arguments.with_stdin:
        loop.add_reader(sys.stdin, done.set)
    async with hub:
        sys.stdout.write(json.dumps({"endpoint": hub.endpoint, "cdn": hub.cdn, "control": hub.control}) + "\n")
        sys.stdout.flush()
        await done.wait()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    with tempfile.TemporaryDirectory(prefix="wantd-hub-") as directory:
        asyncio.run(_serve(_arguments(), directory))


if __name__ == "__main__":
    main()
