"""Bytes on their way: ranges, partials and their journals, verification, rates."""
