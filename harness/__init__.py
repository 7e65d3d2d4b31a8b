"""arc-bench harness: grids, tasks, augmentation, prompts, sampling, voting, metrics and statistics."""

__version__ = "0.1.0"
