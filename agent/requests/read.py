"""One look at a path of the spool: a want, or why it is none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from agent.core.limits import BATCH_MODELS
from agent.core.want import WANT_SUFFIX, Want, parse_want
from agent.errors import Code, WantdError
from agent.spool.files import Stamp, StillWrittenError, read_want, stamp_of
from agent.spool.folders import Folders

SAME_MAX_BYTES = 1024  # longer contents are parsed each time
SAME_MOST = 1000  # contents remembered: 1 MB


@dataclass(slots=True)
class Seen:
    """What one look at a path gave: a want, an error, nothing (`stamp` is None), or a file that is `still` written."""

    path: str
    stamp: Stamp | None = None
    digest: bytes | None = None
    want: Want | None = None
    error: WantdError | None = None
    still: bool = False


class Reader:
    """Reads wants of one spool. Blocks on the disk: for a worker thread."""

    def __init__(self, spool: str) -> None:
        self._spool = spool

    def __call__(self, paths: Sequence[tuple[str, bool]]) -> list[Seen]:
        """A look at each path (True: the writer was seen to close it), in their order.

        Fewer than were asked for where those name `BATCH_MODELS` models: the others are to be asked for again.
        """
        seen: list[Seen] = []
        models = 0
        with Folders(self._spool) as folders:
            for path, closed in paths:
                if models >= BATCH_MODELS:
                    break
                look = _read(folders, path, closed)
                models += len(look.want.models) if look.want else 1
                seen.append(look)
        return seen


def _read(folders: Folders, path: str, closed: bool) -> Seen:
    """Read the want; `closed` says that its writer was seen to close it."""
    seen = Seen(path)
    try:
        seen.stamp = stamp_of(folders, path)
        data, seen.stamp = read_want(folders, path, closed=closed)
        seen.digest = hashlib.blake2b(data, digest_size=16).digest()
        seen.want = _parse(path, data)
    except StillWrittenError:
        seen.still = True
    except (FileNotFoundError, NotADirectoryError):
        seen.stamp = None
    except WantdError as error:
        seen.error = error.with_traceback(None)  # which would keep the frames, and the bytes of the want in them
    except OSError as error:
        hint = "make it a plain file that the agent's user may read"
        seen.error = WantdError(Code.WANT_UNREADABLE, f"the want cannot be read: {error.strerror}", hint)
    return seen


def _parse(path: str, data: bytes) -> Want:
    want = _parse_shared(data) if len(data) <= SAME_MAX_BYTES else None
    # Without content the model is the file's own name.
    return want if want and want.models[0].reference else parse_want(os.path.basename(path), data)


@lru_cache(SAME_MOST)
def _parse_shared(data: bytes) -> Want:
    """Many wants hold the same: those share one `Want`."""
    return parse_want(WANT_SUFFIX, data)
