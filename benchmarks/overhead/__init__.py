"""Parts of benchmarks/harness_overhead.py: a server without latency, and a runner per peer."""
