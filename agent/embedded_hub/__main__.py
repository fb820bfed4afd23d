"""`python -m agent.embedded_hub`: a Hub to try things out on. Prints one JSON line when it is ready."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile

from agent.embedded_hub.demo import REPO, demo_repo
from agent.embedded_hub.repo import Repo
from agent.embedded_hub.server import EmbeddedHub


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m agent.embedded_hub", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="the Hub's port on 127.0.0.1 (any free one)")
    parser.add_argument("--cdn-port", type=int, default=0, help="the storage's port, also on 127.0.0.1")
    parser.add_argument("--repo", action="append", default=[], metavar="ID=DIR", help="serve a directory as a repo")
    parser.add_argument("--size", type=int, default=24 * 1024, help=f"bytes of the GGUF of {REPO}, about")
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace, directory: str) -> None:
    repos = [Repo.from_directory(*pair.split("=", 1)) for pair in arguments.repo]
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    repos.append(demo_repo(arguments.size, directory))
    async with EmbeddedHub(repos, port=arguments.port, cdn_port=arguments.cdn_port) as hub:
        sys.stdout.write(json.dumps({"endpoint": hub.endpoint, "cdn": hub.cdn}) + "\n")
        sys.stdout.flush()
        await done.wait()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    with tempfile.TemporaryDirectory(prefix="wantd-hub-") as directory:
        asyncio.run(_serve(_arguments(), directory))


if __name__ == "__main__":
    main()
