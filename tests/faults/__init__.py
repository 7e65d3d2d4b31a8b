"""The fault matrix: what is promised under which fault, each promise asserted (docs/faults.md)."""
