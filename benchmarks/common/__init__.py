"""Shared parts of all benchmarks: stored measurements, measured processes, formatted results."""
