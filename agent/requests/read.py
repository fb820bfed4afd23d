"""One look at a path of the spool: a want, or why it is none."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from agent.core.want import Want, parse_want
from agent.errors import Code, WantdError
from agent.spool.files import Stamp, StillWrittenError, read_want


@dataclass(slots=True)
class Seen:
    """What one look at a path gave: a want, an error, nothing (`stamp` is None), or a file that is `still` written."""

    path: str
    stamp: Stamp | None = None
    digest: bytes | None = None
    want: Want | None = None
    error: WantdError | None = None
    still: bool = False


def read(path: str, closed: bool) -> Seen:
    """Read the want; `closed` says that its writer was seen to close it. Blocks on the disk."""
    seen = Seen(path)
    try:
        seen.stamp = Stamp.of(os.lstat(path))
        data, seen.stamp = read_want(path, closed=closed)
        seen.digest = hashlib.blake2b(data, digest_size=16).digest()
        seen.want = parse_want(os.path.basename(path), data)
    except StillWrittenError:
        seen.still = True
    except (FileNotFoundError, NotADirectoryError):
        seen.stamp = None
    except WantdError as error:
        seen.error = error
    except OSError as error:
        hint = "make it a plain file that the agent's user may read"
        seen.error = WantdError(Code.WANT_UNREADABLE, f"the want cannot be read: {error.strerror}", hint)
    return seen
