"""Parts of benchmarks/throughput.py: the sides that it compares."""
