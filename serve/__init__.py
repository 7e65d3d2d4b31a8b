"""arc-bench serve: one vLLM with any number of LoRA adapters that are swapped while it answers."""
