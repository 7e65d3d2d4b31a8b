"""Parts of benchmarks/hot_swap.py: adapters, contestants, traffic, the page."""
