"""Why a piece was not read, what the fetch has to do about it, and the error that people are shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from agent.core.access import ConnectionLost, LocationExpired, ProtocolError, RateLimited, Stalled
from agent.core.names import show
from agent.core.remote import Location
from agent.errors import Code, WantdError
from agent.net.budget import rate_limited


class Changed(Exception):
    """These are bytes of another version of the file."""


# Everything that reading a piece may raise, but for `Stopped`. Anything else is a bug.
EXPECTED = (RateLimited, Changed, ProtocolError, LocationExpired, ConnectionLost, Stalled, WantdError)

_DISK = frozenset({Code.DISK_FULL, Code.STORE_UNWRITABLE})


class FailureKind(Enum):
    """What the fetch has to do about a failure."""

    PASSING = auto()  # wait and try again; ask for another location when nothing moves
    RELOCATE = auto()  # the location has expired or is of no use: ask for another at once
    RATE = auto()  # the host takes no requests for a while
    CHANGED = auto()  # the location has another version of the file now
    FATAL = auto()  # raise it


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a piece was not read; `wait_s` is for `RATE`: how many seconds the host is to be left alone."""

    kind: FailureKind
    error: WantdError
    wait_s: float = 0.0


def failure(error: Exception, location: Location, label: str, stall_s: float) -> Failure:
    """The failure for what reading the file `label` from `location` raised (one of `EXPECTED`)."""
    host = show(host_of(location), 80)
    reading = f"downloading {show(label)} from {host} failed"
    match error:
        case RateLimited():
            return Failure(FailureKind.RATE, rate_limited(host, error.seconds), error.seconds)
        case Changed():
            return Failure(FailureKind.CHANGED, _unusable(f"{reading}: another version than before", label))
        case ProtocolError():
            return Failure(FailureKind.RELOCATE, _unusable(f"{reading}: {error}", label))
        case LocationExpired():
            return Failure(FailureKind.RELOCATE, _unreachable(location, f"{reading}: {error}", label))
        case ConnectionLost():
            return Failure(FailureKind.PASSING, _unreachable(location, f"{reading}: {error}", label))
        case Stalled():
            return Failure(FailureKind.PASSING, _stalled(f"{reading}: connected, but {error}", label, stall_s))
        case WantdError():
            return Failure(FailureKind.FATAL if error.code in _DISK else FailureKind.RELOCATE, error)
    raise error


def bug(label: str, error: Exception) -> WantdError:
    """`internal`: something raised what it must not."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else "?"
    return WantdError(
        Code.INTERNAL,
        f"downloading {show(label)} failed: {type(error).__name__} in {where}",
        "report this line as a bug of wantd",
        file=label,
    )


def host_of(location: Location) -> str:
    """What messages call the far end: its host, or the name of the source."""
    return location.access.host or location.source


def _unreachable(location: Location, what: str, label: str) -> WantdError:
    hint = "check the network and the host's own state if it goes on; wantd keeps trying"
    return WantdError(location.unreachable, what, hint, file=label)


def _stalled(what: str, label: str, stall_s: float) -> WantdError:
    hint = f"check the network if it goes on; wantd keeps trying (transfer.stall_timeout_s is {stall_s:g} s)"
    return WantdError(Code.STALLED, what, hint, file=label)


def _unusable(what: str, label: str) -> WantdError:
    hint = "check HF_ENDPOINT and for a proxy or login page in between, or report it to the server's operator"
    return WantdError(Code.HUB_PROTOCOL, what, hint, file=label)
