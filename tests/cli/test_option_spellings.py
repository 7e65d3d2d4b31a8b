"""Options mean the same in every command, and the spellings of the version before are accepted with a warning."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest

from harness.cli import cli
from harness.cli.entry import run_cli
from harness.cli.parameters import JsonObject

RUN = ("run", "--server", "u", "--model", "m", "--dataset", "d")
PARITY = ("--server", "u", "--model", "m")
ADAPTERS = ("--adapters", "folder")


def parse(*words: str) -> dict[str, object]:
    """Return the parameters of the command that ``words`` call, without running it."""
    command: click.Command = cli
    path = list(words)
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), path.pop(0))
        assert found is not None
        command = found
    return command.make_context(command.name, path).params


def commands(group: click.Group = cli) -> list[click.Command]:
    """Return every command of the command line."""
    context = click.Context(group)
    parts = [group.get_command(context, name) for name in group.list_commands(context)]
    below = [command for part in parts if isinstance(part, click.Group) for command in commands(part)]
    return [part for part in parts if part is not None and not isinstance(part, click.Group)] + below


def test_numbers_are_finite() -> None:
    """No option of any command takes nan or infinity, which would be sent and saved as null."""
    context = click.Context(click.Command("x"))
    ranges = [
        (command.name, param)
        for command in commands()
        for param in command.params
        if isinstance(param.type, click.types.FloatParamType)
        and command.name not in ("train", "preview")  # recipes check theirs
    ]
    assert len(ranges) > 20
    for name, param in ranges:
        for text in ("nan", "inf", "-inf", "1e999"):
            with pytest.raises(click.BadParameter):
                print(name, param.name, text, param.type.convert(text, param, context))
    with pytest.raises(click.BadParameter, match="1e999 is larger than every number"):
        JsonObject().convert('{"top_k": 1e999}', None, context)
    with pytest.raises(click.BadParameter, match="NaN is no number of JSON"):
        JsonObject().convert('{"top_k": NaN}', None, context)


OLD_AND_NEW = [
    (("train", "r.yaml", "-o", "max_steps=3"), ("train", "r.yaml", "--set", "max_steps=3")),
    (("train", "r.yaml", "--override", "a=1"), ("train", "r.yaml", "--set", "a=1")),
    (("train", "-o", "a=1", "-olora.rank=2", "r.yaml"), ("train", "r.yaml", "--set", "a=1", "--set", "lora.rank=2")),
    (("train", "r.yaml", "-o", "a=1", "-o", "out"), ("train", "r.yaml", "--set", "a=1", "--out", "out")),
    (("train", "r.yaml", "--json"), ("train", "r.yaml", "--json", "-")),
    (("train", "--json", "r.yaml"), ("train", "r.yaml", "--json", "-")),
    (("train", "--json", "--dry-run", "r.yaml"), ("train", "r.yaml", "--dry-run", "--json", "-")),
    (("preview", "r.yaml", "-o", "a=1"), ("preview", "r.yaml", "--set", "a=1")),
    (("preview", "r.yaml", "--override=a=1"), ("preview", "r.yaml", "--set", "a=1")),
    (("preview", "--json", "r.yaml"), ("preview", "r.yaml", "--json", "-")),
    (("sweep", "s.yaml", "-o", "seeds=[0,1]"), ("sweep", "s.yaml", "--set", "seeds=[0,1]")),
    (("sweep", "s.yaml", "--override", "a=1"), ("sweep", "s.yaml", "--set", "a=1")),
    (("parity", "--json", "a", *PARITY), ("parity", "a", *PARITY, "--json", "-")),
    (("parity", "a", *PARITY, "--json"), ("parity", "a", *PARITY, "--json", "-")),
    (("merge", "b", "a", "--output", "o"), ("merge", "b", "a", "--out", "o")),
    (("tiny-base", "--output", "o"), ("tiny-base", "--out", "o")),
    (("report", "tests", "--output", "o.md"), ("report", "tests", "--out", "o.md")),
    (("doctor", "--json"), ("doctor", "--json", "-")),
    (("doctor", "--json", "tiny"), ("doctor", "tiny", "--json", "-")),
    (("doctor", "tiny", "--encoder", "E"), ("doctor", "tiny", "--grid-encoder", "E")),
    (("data", "list", "--json"), ("data", "list", "--json", "-")),
    (("data", "stats", "--json", "d.json"), ("data", "stats", "d.json", "--json", "-")),
    (("data", "stats", "d", "--encoder", "E"), ("data", "stats", "d", "--grid-encoder", "E")),
    (("data", "show", "d", "--output", "o.png"), ("data", "show", "d", "--out", "o.png")),
    (("data", "export", "d", "--output", "o.json"), ("data", "export", "d", "--out", "o.json")),
    (("adapters", "list", *ADAPTERS, "--json"), ("adapters", "list", *ADAPTERS, "--json", "-")),
    (("adapters", "list", "--json", *ADAPTERS), ("adapters", "list", *ADAPTERS, "--json", "-")),
    (("adapters", "load", "--json", "a", *ADAPTERS), ("adapters", "load", "a", *ADAPTERS, "--json", "-")),
    (("adapters", "unload", "--json", "a", *ADAPTERS), ("adapters", "unload", "a", *ADAPTERS, "--json", "-")),
    (("adapters", "promote", "a", *ADAPTERS, "--json"), ("adapters", "promote", "a", *ADAPTERS, "--json", "-")),
    (("adapters", "rollback", "a", *ADAPTERS, "--json"), ("adapters", "rollback", "a", *ADAPTERS, "--json", "-")),
]


@pytest.mark.parametrize(("old", "new"), OLD_AND_NEW, ids=[" ".join(old) for old, _ in OLD_AND_NEW])
def test_an_old_spelling_means_the_same_and_warns(
    old: tuple[str, ...], new: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = parse(*new)
    assert capsys.readouterr().err == ""
    assert parse(*old) == expected
    assert capsys.readouterr().err.startswith("warning: ")


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (("train", "r.yaml", "-o", "runs/a"), "output_dir", "runs/a"),
        (("train", "r.yaml", "-o", "./a=b"), "output_dir", "./a=b"),
        (("train", "--output_dir", "a"), "output_dir", "a"),
        (("train", "--json", "m.json", "--output_dir", "a"), "json_file", Path("m.json")),
        (("train", "r.yaml", "--json", "manifest"), "json_file", Path("manifest")),
        (("sweep", "s.yaml", "-o", "runs/a"), "out", Path("runs/a")),
        (("doctor", "--json", "d.json"), "json_file", Path("d.json")),
        (("data", "stats", "d.json", "--json", "s.json"), "json_file", Path("s.json")),
        (("data", "list", "--json=rows"), "json_file", Path("rows")),
        (("demo", "-o", "a"), "out", Path("a")),
        ((*RUN, "-o", "a"), "out", Path("a")),
        (("submit", "r", "--out", "s.json"), "output", Path("s.json")),
    ],
)
def test_a_new_spelling_gives_no_warning(
    words: tuple[str, ...], name: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse(*words)[name] == value
    assert capsys.readouterr().err == ""


def test_a_new_spelling_wins_over_an_old_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("merge", "b", "a", "--out", "new", "--output", "old")["output"] == Path("new")
    assert parse("train", "r.yaml", "--set", "a=2", "-o", "a=1")["overrides"] == ("a=1", "a=2")
    assert "--output is now --out" in capsys.readouterr().err


def test_options_of_one_meaning_have_one_spelling() -> None:
    meanings = {
        "--out": {"output", "out", "output_dir"}, "--json": {"json_file"}, "--set": {"overrides"},
        "--grid-encoder": {"encoder", "grid_encoder"},
    }  # fmt: skip
    for command in commands():
        for param in command.params:
            for spelling, names in meanings.items():
                if param.name in names and isinstance(param, click.Option):
                    assert spelling in param.opts, f"{command.name}: {param.opts}"
            if "-o" in param.opts:
                assert "--out" in param.opts, f"{command.name}: {param.opts}"


def test_json_goes_to_a_file_beside_the_text_or_alone_to_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(cli, ["data", "list", "--json", str(tmp_path / "new" / "rows.json")]) == 0
    text = capsys.readouterr().out
    rows = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert text.startswith(rows[0]["spec"] + "\n")
    assert run_cli(cli, ["data", "list", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == rows


def test_json_is_written_into_a_pipe_and_does_not_replace_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        reader = pool.submit(pipe.read_text)
        assert run_cli(cli, ["data", "list", "--json", str(pipe)]) == 0
        assert json.loads(reader.result(timeout=60))
    assert pipe.is_fifo()
