"""Where trainings run: the value of ``--on``."""

from __future__ import annotations

import re
from dataclasses import dataclass

import click

from harness.core.errors import ConfigError

_ADDRESS = re.compile(r"(?P<host>[\w.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_FORMS = "write ray, or ray:HOST:PORT with the address that `ray start --head` printed"


@dataclass(frozen=True, slots=True)
class RayAddress:
    """A Ray cluster; without host and port the running one, or a new one on this machine."""

    host: str | None = None
    port: int | None = None

    def as_text(self) -> str | None:
        """Return ``HOST:PORT`` as Ray takes it; None without an address."""
        return None if self.host is None else f"{self.host}:{self.port}"


def parse_address(text: str) -> RayAddress:
    """Return the cluster that a value of ``--on`` names.

    Raises:
        ConfigError: it is not one of the two forms. Ray Client (``ray://``) is not taken: this machine must read what
            the nodes write, so it can just as well be a node.
    """
    if text == "ray":
        return RayAddress()
    engine, _, rest = text.partition(":")
    if engine != "ray":
        raise ConfigError(f"--on {text}: trainings are placed by Ray only; {_FORMS}")
    if rest.startswith("//"):
        raise ConfigError(
            f"--on {text}: Ray Client addresses are not taken; make this machine a node of the cluster "
            "(ray start --address=HOST:6379) and write ray:HOST:6379"
        )
    match = _ADDRESS.fullmatch(rest)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ConfigError(f"--on {text}: {rest!r} is no HOST:PORT; {_FORMS}")
    return RayAddress(match["host"], int(match["port"]))


class OnOption(click.ParamType[RayAddress]):
    """The value of ``--on``, parsed."""

    name = "ray[:HOST:PORT]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> RayAddress:
        if isinstance(value, RayAddress):
            return value
        try:
            return parse_address(str(value))
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from None
