"""``python -m harness.cli``: the command ``bench`` for child processes of this very interpreter."""

from harness.cli import main

main()
