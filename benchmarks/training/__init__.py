"""Parts of benchmarks/trainer.py: the setting, the contestants, and the machine's limit."""
