"""``python -m harness.cli``: the command ``bench``, for child processes that need the same interpreter."""

from harness.cli import main

main()
