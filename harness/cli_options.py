"""Command-line options with the same meaning in every command, and the spellings that they had before.

``-o/--out`` is the output, ``--set KEY=VALUE`` an override, ``--json FILE`` the result for another program (``-`` for
stdout) and ``--grid-encoder`` a grid encoder. Earlier spellings are accepted for one version, with a warning on stderr.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from harness.core.files import write_atomically

C = TypeVar("C", bound=Callable[..., Any])
_SETTING = re.compile(r"\s*[A-Za-z_][\w.-]*\s*=")
"""How a ``KEY=VALUE`` override begins; a folder that looks like one is written ``./KEY=VALUE``."""
_BARE = "\0no value"
"""What the parser stores for ``--json`` without a value."""


class FloatRange(click.FloatRange):
    """A range of numbers; refuses nan and infinity, which click's own accepts where the range has no bound there."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number", param, ctx)
        return number


class RenamedOption(click.Option):
    """An option that is also accepted under earlier names, with a warning.

    A value under the present name wins; where several values are taken, those under earlier names come first.
    """

    def __init__(self, *args: Any, old_names: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.old_names = old_names

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        action = "append" if self.multiple else "store"
        for name in self.old_names:
            parser.add_option(self, [name], dest=name, action=action, nargs=self.nargs)

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, Any]:
        for name in self.old_names:
            if name in opts:
                opts = self._merge(ctx, opts, name, opts[name])
        return super().consume_value(ctx, opts)

    def _merge(self, ctx: click.Context, opts: Mapping[str, Any], old_name: str, value: Any) -> dict[str, Any]:
        """Return the parsed options with a value that was given under an earlier name."""
        present = max(self.opts, key=len)
        _warn(ctx, f"{old_name} is now {present}; write {present}, as the next version no longer takes {old_name}")
        name = self.name
        return {**opts, name: [*value, *opts.get(name, ())]} if self.multiple else {name: value, **opts}


class SettingOption(RenamedOption):
    """``--set KEY=VALUE``; also takes ``-o KEY=VALUE``, its spelling before ``-o`` was the output."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        parser.add_option(self, ["-o"], dest="-o", action="append")

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, Any]:
        if settings := [value for value in opts.get("-o", ()) if _SETTING.match(value)]:
            opts = self._merge(ctx, opts, "-o KEY=VALUE", settings)
        return super().consume_value(ctx, opts)


class OutputBesideSettings(click.Option):
    """``-o/--out`` of a command with a ``SettingOption``: ``-o`` values that are no ``KEY=VALUE`` are the output."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        parser.add_option(self, ["-o"], dest="-o", action="append")

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, Any]:
        if outputs := [value for value in opts.get("-o", ()) if not _SETTING.match(value)]:
            opts = {**opts, self.name: outputs[-1]}
        return super().consume_value(ctx, opts)


class JsonOption(click.Option):
    """``--json FILE`` of a command whose ``--json`` took no value and printed.

    ``--json`` as the last word or before another option still prints, with a warning. The word after it is the
    command's argument, as before, where that is missing otherwise: always if the argument is required, and unless
    the word is ``-`` or ends in ``.json`` if the argument is optional. So an old command line never overwrites a file.
    """

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **{**attributes, "is_flag": False, "flag_value": _BARE, "is_eager": True})

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        word = opts.get(self.name)
        argument = next((param for param in ctx.command.params if isinstance(param, click.Argument)), None)
        if isinstance(word, str) and argument is not None and not isinstance(opts.get(argument.name), str):
            is_file = not argument.required and (word == "-" or word.endswith(".json"))
            if not is_file:
                assert isinstance(opts, dict)
                opts |= {argument.name: word, self.name: _BARE}  # the argument is processed after this eager option
        return super().handle_parse_result(ctx, opts, args)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        if value == _BARE:
            _warn(ctx, "--json now takes a file; write --json - to print, as the next version needs a value")
            value = "-"
        return super().process_value(ctx, value)


def _warn(ctx: click.Context, message: str) -> None:
    if not ctx.resilient_parsing:
        click.echo(f"warning: {message}", err=True)


def output_option(**attributes: Any) -> Callable[[C], C]:
    """Return the option ``-o/--out``, formerly ``--output``, whose value is the parameter ``output``.

    Args:
        attributes: of ``click.option``; the type is a path unless given.
    """
    attributes = {"type": click.Path(path_type=Path), "cls": RenamedOption, "old_names": ("--output",), **attributes}
    return click.option("-o", "--out", "output", **attributes)


def settings_option(help_text: str) -> Callable[[C], C]:
    """Return the option ``--set KEY=VALUE``, formerly ``--override``, whose values are the parameter ``overrides``."""
    attributes: dict[str, Any] = {"cls": SettingOption, "old_names": ("--override",), "multiple": True}
    return click.option("--set", "overrides", metavar="KEY=VALUE", help=help_text, **attributes)


def grid_encoder_option(**attributes: Any) -> Callable[[C], C]:
    """Return the option ``--grid-encoder``, formerly ``--encoder``, whose value is the parameter ``encoder``.

    Args:
        attributes: of ``click.option``.
    """
    return click.option("--grid-encoder", "encoder", cls=RenamedOption, old_names=("--encoder",), **attributes)


def schema_option(load: Callable[[], Mapping[str, Any]]) -> Callable[[C], C]:
    """Return the flag ``--schema``, which prints the JSON schema of the command's YAML file and exits.

    Args:
        load: returns the schema.
    """

    def show(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not ctx.resilient_parsing:
            click.echo(json.dumps(load(), indent=2))
            ctx.exit()

    help_text = "Print the JSON schema of the YAML file, for editors, and exit."
    return click.option("--schema", is_flag=True, is_eager=True, expose_value=False, callback=show, help=help_text)


def rule_option(before_sampling: bool = False) -> Callable[[C], C]:
    """Return the option ``--rule NAME``, whose value is the parameter ``rule``.

    Args:
        before_sampling: whether the command samples, so that the rule is recorded first.
    """
    text = "The selection rule that gives vote_1 and vote_2. Default: "
    text += "the vote. It is recorded before the first prediction." if before_sampling else "the run's, else the vote."
    return click.option("--rule", metavar="NAME", help=text)


def scorer_option() -> Callable[[C], C]:
    """Return the option ``--scorer NAME``, whose value is the parameter ``scorer``."""
    text = "Whose log-probabilities poe and kgmon use, where several models rescored."
    return click.option("--scorer", metavar="NAME", help=text)


_JSON_PATH = click.Path(dir_okay=False, allow_dash=True, path_type=Path)
_JSON_ATTRIBUTES: dict[str, Any] = {"metavar": "FILE", "type": _JSON_PATH}
_JSON_HELP = "Also write {what} as JSON to this file; - prints the JSON alone."


def json_option(what: str, was_flag: bool = True) -> Callable[[C], C]:
    """Return the option ``--json FILE``, whose value is the parameter ``json_file`` (None, a path, or ``-``).

    Args:
        what: what the JSON holds, for the help text.
        was_flag: whether ``--json`` took no value before, so that this spelling is still accepted.
    """
    cls = JsonOption if was_flag else click.Option
    return click.option("--json", "json_file", cls=cls, help=_JSON_HELP.format(what=what), **_JSON_ATTRIBUTES)


def print_result(text: str, content: str, json_file: Path | None) -> None:
    """Print a result for people and write it as JSON; with ``--json -`` print the JSON alone.

    Args:
        text: for people, without a newline at its end.
        content: the JSON, likewise.
        json_file: the value of ``--json``; a regular file is replaced atomically.
    """
    if str(json_file) == "-":
        click.echo(content)
        return
    if text:
        click.echo(text)
    if json_file is None:
        return
    if json_file.exists() and not json_file.is_file():  # a device or pipe, which must not be replaced
        json_file.write_bytes(content.encode() + b"\n")
    else:
        write_atomically(json_file, content.encode() + b"\n")
