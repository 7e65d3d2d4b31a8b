"""Parts of benchmarks/data.py: a file like BARC's, and ways to read it."""
