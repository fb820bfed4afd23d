"""A small, true Hub on loopback, for the demo, the tests and the benchmarks."""
