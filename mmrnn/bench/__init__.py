"""Benchmarks against other libraries: one module per part, each with `measure(config)`."""
