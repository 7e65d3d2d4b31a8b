"""Evidence for the candidates of ``--search dfs`` and their rules: half-trained adapters, runs, figures."""
