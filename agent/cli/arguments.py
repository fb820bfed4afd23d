"""Types of command-line arguments."""

from __future__ import annotations

import argparse
import math


def not_empty(text: str) -> str:
    """Any text but blanks. Raises ArgumentTypeError."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def seconds(text: str) -> float:
    """A time that ends, in seconds. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:  # false for NaN, too
        raise argparse.ArgumentTypeError(f"expected a number of seconds, not {text!a}")
    return value
