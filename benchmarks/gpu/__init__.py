"""The parts of `python -m benchmarks.gpu` (`make gpu-check`): steps, what each does, and traffic during swaps."""
