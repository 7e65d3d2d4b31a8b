"""Parts of benchmarks/scoring.py: simulated predictions in files, and a plain script that scores them."""
