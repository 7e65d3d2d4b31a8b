"""What benchmarks/harness_overhead.py consists of: a server that costs nothing, and one runner a peer."""
