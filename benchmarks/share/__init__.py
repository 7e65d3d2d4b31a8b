"""What benchmarks/throughput.py consists of: the sides that it compares."""
