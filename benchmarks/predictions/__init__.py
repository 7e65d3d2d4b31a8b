"""Simulated predictions in files, and a plain script that scores them: parts of benchmarks/scoring.py."""
