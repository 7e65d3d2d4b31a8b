"""What benchmarks/trainer.py consists of: the setting, the contestants, and the ceiling of the machine."""
