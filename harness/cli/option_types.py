"""Options that take one or more values each."""

from __future__ import annotations

import click


class RepeatedOptions(click.Command):
    """A command where ``--train A B`` stands for ``--train A --train B``, and the same for ``--eval``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        option = ""
        for arg in args:
            if option and not arg.startswith("-") and spread[-1] != option:
                spread.append(option)
            spread.append(arg)
            if arg.startswith("-"):
                option = arg if arg in ("--train", "--eval") else ""
        return super().parse_args(ctx, spread)
