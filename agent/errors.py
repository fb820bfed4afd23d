"""The one error type of wantd, its codes (docs/errors.md) and the exit codes of its commands.

An error is classed where it is raised: the code says what happened, `retryable` whether waiting alone may help,
`message` gives the values, `hint` what a person can do. Nothing above has to guess.
"""

from __future__ import annotations

import sys
from enum import IntEnum, StrEnum
from typing import Any


class Code(StrEnum):
    """What went wrong, as `.progress` files and `wantd get` say it."""

    WANT_INVALID = "want_invalid"
    WANT_UNREADABLE = "want_unreadable"
    WANT_TOO_LARGE = "want_too_large"
    MODEL_NOT_SUPPORTED = "model_not_supported"
    MODEL_NOT_FOUND = "model_not_found"
    REVISION_NOT_FOUND = "revision_not_found"
    FILE_NOT_FOUND = "file_not_found"
    AMBIGUOUS_FILE = "ambiguous_file"
    GATED = "gated"
    UNAUTHORIZED = "unauthorized"
    TOKEN_INVALID = "token_invalid"  # noqa: S105  a code, not a token
    FORBIDDEN_FORMAT = "forbidden_format"
    FORBIDDEN_PATH = "forbidden_path"
    INSUFFICIENT_SPACE = "insufficient_space"
    STORE_UNWRITABLE = "store_unwritable"
    HUB_PROTOCOL = "hub_protocol"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    HUB_UNREACHABLE = "hub_unreachable"
    PROXY_UNREACHABLE = "proxy_unreachable"
    RATE_LIMITED = "rate_limited"
    STALLED = "stalled"
    DISK_FULL = "disk_full"
    LOCK_TIMEOUT = "lock_timeout"
    INTERNAL = "internal"
    SPOOL_IN_USE = "spool_in_use"
    SPOOL_UNWRITABLE = "spool_unwritable"


RETRYABLE = frozenset(
    {
        Code.HUB_UNREACHABLE,
        Code.PROXY_UNREACHABLE,
        Code.RATE_LIMITED,
        Code.STALLED,
        Code.DISK_FULL,
        Code.LOCK_TIMEOUT,
        Code.INTERNAL,
    }
)


class Exit(IntEnum):
    """Exit codes of the commands. Each error code has one of its own, from 10 up in the order of `Code`."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NO_AGENT = 3  # `get` and `status`: no agent serves the spool
    SOME_FAILED = 4  # `status`: at least one want has failed
    CONFIG = 78  # EX_CONFIG of sysexits(3); the unit's RestartPreventExitStatus
    INTERRUPTED = 130  # 128 + SIGINT, as shells report it

    @staticmethod
    def of(code: Code) -> int:
        """The exit code of `wantd get` for an error code."""
        return 10 + list(Code).index(code)


class WantdError(Exception):
    """Anything that goes wrong for a want: code, message with values, hint, and where it happened.

    `retry_after_s` is what a server asked for, in seconds; `model` and `file` are filled in on the way up where
    they are known. Never holds a token or a signed URL: the text goes to files that every user may read.

    100,000 wants may hold one each, so it is kept small: slots, and hints that are equal are one string.
    """

    __slots__ = ("code", "file", "hint", "message", "model", "retry_after_s", "retryable")

    def __init__(
        self,
        code: Code,
        message: str,
        hint: str,
        *,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        model: str | None = None,
        file: str | None = None,
    ) -> None:
        super().__init__()
        self.code = code
        self.message = message
        self.hint = sys.intern(hint)
        self.retryable = code in RETRYABLE if retryable is None else retryable
        self.retry_after_s = retry_after_s
        self.model = model
        self.file = file

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        """The `error` object of a progress file."""
        return {
            "code": self.code.value,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "model": self.model,
            "file": self.file,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> WantdError:
        """The error that a progress file shows. A code of a later version reads as `internal`."""
        code = value.get("code")
        return WantdError(
            Code(code) if code in list(Code) else Code.INTERNAL,
            str(value.get("message")),
            str(value.get("hint")),
            retryable=bool(value.get("retryable")),
            model=value.get("model"),
            file=value.get("file"),
        )


class ConfigError(Exception):
    """The configuration cannot be used; `problems` lists everything that is wrong with it at once."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
