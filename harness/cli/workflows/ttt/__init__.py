"""The command ``bench ttt``: train an adapter for every task, load it into a running server, and bench it."""
