"""Where models come from: one small Protocol, one contract suite for every implementation."""
