"""A comparison of 1, 8 and 64 GPUs, computed from measured figures and stated assumptions."""
