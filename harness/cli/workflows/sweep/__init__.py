"""The command ``bench sweep``: train, serve, bench and compare several mixtures or values of recipe keys."""
