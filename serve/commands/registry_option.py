"""The option that names the adapter registry."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)
adapters_option = click.option(
    "--adapters", type=FOLDER, help="The adapter registry, a folder that the first addition creates."
)
