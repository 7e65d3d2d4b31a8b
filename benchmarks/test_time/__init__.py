"""Parts of benchmarks/ttt.py."""
