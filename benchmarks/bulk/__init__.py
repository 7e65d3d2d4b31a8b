"""A file of BARC's form and size, and ways to read it: parts of benchmarks/data.py."""
