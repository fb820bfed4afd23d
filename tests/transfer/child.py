"""A process that fetches one file and may be killed at any moment: url, part, journal, size, sha256."""

import asyncio
import sys

from agent.config import Transfer as TransferConfig
from agent.core.access import PlainHttp
from agent.core.remote import FetchRequest, Location
from agent.errors import WantdError
from agent.net.address import AddressRule
from agent.net.budget import HostBudgets
from agent.transfer.engine import Engine


async def main() -> None:
    url, part, journal, size, sha256 = sys.argv[1:]
    engine = Engine(TransferConfig, HostBudgets(), {})

    async def locate(_: WantdError | None) -> Location:
        return Location("hub", PlainHttp(url, AddressRule(True)))

    await engine.fetch(FetchRequest("file", part, journal, int(size), sha256), locate, lambda *_: None)
    await engine.close()


asyncio.run(main())
