"""What is said where a selection fits no file, or too many: with the files that are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.core.names import show
from agent.core.remote import Listing
from agent.core.target import Selection
from agent.errors import Code, WantdError

CHOICES_SHOWN = 12


def _choices(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - CHOICES_SHOWN} more" if len(listed) > CHOICES_SHOWN else ""
    return ", ".join(show(name).strip("'") for name in listed[:CHOICES_SHOWN]) + more


def ambiguous(selection: Selection, why: str, names: Sequence[str]) -> WantdError:
    """The error where several `names` fit."""
    return WantdError(
        Code.AMBIGUOUS_FILE,
        f"it is not clear which file of {selection.repo} is meant: {why}",
        f"add :QUANT to the reference, or name one with 'files'; there are {_choices(names)}",
    )


def not_found(selection: Selection, listing: Listing, why: str) -> WantdError:
    """The error where none fits."""
    weights = [f.name for f in listing.files if f.name.lower().endswith((".gguf", ".safetensors"))]
    there = f"; there are {_choices(weights)}" if weights else ""
    return WantdError(
        Code.FILE_NOT_FOUND,
        f"{selection.repo} at {listing.commit[:12]} has not what is wanted: {why}",
        f"check the quant, the file names and the catalogue entry{there}",
    )
