"""Full runs, simulated and real, that `benchmarks.stopping` replays."""
