"""How a hook is told: its program is run, or its URL gets a POST."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

import orjson

from agent.config import Hook
from agent.core.retry import HOOK_RUN_S, REPORT_CONNECT_S
from agent.errors import WantdError
from agent.net.address import AddressRule
from agent.net.budget import HostBudgets
from agent.net.client import Http, Limits

# What a hook's process gets of the agent's environment: never the tokens.
PASSED_ON = ("PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR")
LIMITS = Limits(connect_s=REPORT_CONNECT_S, head_s=HOOK_RUN_S, body_s=HOOK_RUN_S, body_bytes=64 * 1024)


class HookCalls:
    """`tell` hands a hook its document. `environ` is the agent's, for PATH and the proxy variables."""

    def __init__(self, environ: Mapping[str, str], budgets: HostBudgets, limit_s: float = HOOK_RUN_S) -> None:
        self._environ = environ
        self._budgets = budgets
        self._limit_s = limit_s

    async def tell(self, hook: Hook, data: bytes, want: str) -> str | None:
        """What went wrong, or None. A program finds the path of the want in `WANTD_WANT`."""
        if hook.exec:
            passed = {name: self._environ[name] for name in PASSED_ON if name in self._environ}
            return await run_program(hook.exec, data, {**passed, "WANTD_WANT": want}, self._limit_s)
        async with Http(AddressRule(False, hook.url), self._budgets, environ=self._environ, limits=LIMITS) as http:
            try:
                response = await http.post(hook.url, orjson.Fragment(data))
            except WantdError as error:
                return error.message
        return None if response.status < 300 else f"it answered {response.status}"


async def run_program(argv: Sequence[str], data: bytes, environ: Mapping[str, str], limit_s: float) -> str | None:
    """Run a program with `data` on its standard input, for `limit_s` seconds at most. What went wrong, or None."""
    quiet = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.PIPE, stdout=quiet, stderr=quiet, env=environ, start_new_session=True
        )
    except OSError as error:
        return f"cannot run {argv[0]!a}: {error.strerror}"
    try:
        async with asyncio.timeout(limit_s):
            await process.communicate(data)  # a program that reads nothing is no error
            code = await process.wait()
    except TimeoutError:
        return f"it ran for over {limit_s:g} s and was ended"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return f"exit status {code}" if code else None
