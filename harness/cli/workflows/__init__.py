"""Commands that span packages: train with a check by the server, parity, the demo, the sweep."""
