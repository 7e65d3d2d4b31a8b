"""What all benchmarks share: measurements that are kept, processes that are measured, and how results are told."""
