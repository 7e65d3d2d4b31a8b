"""Trainings as Ray tasks on the machines of a cluster. Ray decides where each runs; arc-bench has no scheduler."""
