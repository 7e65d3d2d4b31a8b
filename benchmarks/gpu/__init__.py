"""Parts of `python -m benchmarks.gpu` (`make gpu-check`): steps, their content, and traffic during swaps."""
