"""The comparison with other tools in README.md and docs/speed.md."""
