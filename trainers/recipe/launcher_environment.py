"""What launchers and clusters leave in the environment: torchrun's variables are read, all others are taken out.

``accelerate launch``, MPI and Kubernetes set variables that accelerate would obey: another arithmetic than that of the
recipe, another device, or processes that nobody started.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import MutableMapping

from harness.core.errors import ConfigError

_DECIDES = re.compile(
    r"(ACCELERATE|FSDP|MEGATRON_LM|PARALLELISM_CONFIG|FP8|OMPI_COMM_WORLD|MV2_COMM_WORLD|PMI)_[A-Z0-9_]+"
    r"|MPI_LOCALRANKID|MPI_LOCALNRANKS|CP_SIZE|CP_COMM_STRATEGY|CP_BACKEND"
)
_TORCHRUN = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""They mean something beside WORLD_SIZE only."""
_ONLY_SAY = frozenset({"ACCELERATE_LOG_LEVEL", "ACCELERATE_DEBUG_MODE", "ACCELERATE_ENABLE_RICH"})
_OFF = frozenset({"", "0", "no", "none", "false"})
"""Values that change nothing, which is not worth a word."""


def process_count() -> int:
    """Return how many training processes were launched.

    Raises:
        ConfigError: WORLD_SIZE is no number.
    """
    return _number("WORLD_SIZE", 1, least=1)


def is_first_process() -> bool:
    """Return whether this is the first of the training processes, or the only one.

    Raises:
        ConfigError: WORLD_SIZE or RANK is no number.
    """
    return process_count() == 1 or _number("RANK", 0, least=0) == 0


def remove_launcher_variables(environ: MutableMapping[str, str] | None = None) -> None:
    """Take out of the environment what would decide beside the recipe and torchrun, and say so where it would have.

    Args:
        environ: the environment of this process unless given.
    """
    environ = os.environ if environ is None else environ
    names = [name for name in environ if _DECIDES.fullmatch(name) and name not in _ONLY_SAY]
    names += [name for name in _TORCHRUN if name in environ and "WORLD_SIZE" not in environ]
    told = [f"{name}={environ[name]}" for name in sorted(names) if not _is_off(name, environ[name])]
    for name in names:
        del environ[name]
    if told and is_first_process():
        shown = ", ".join(told[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")
        print(
            f"warning: not used: {shown} in the environment; the recipe decides, and processes are those of torchrun",
            file=sys.stderr,
        )


def _is_off(name: str, value: str) -> bool:
    return value.lower() in _OFF or (value == "1" and name.endswith(("SIZE", "STEPS", "LOCALNRANKS")))


def _number(name: str, default: int, *, least: int) -> int:
    text = os.environ.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
        raise ConfigError(f"{name}={text!r} in the environment is no number of processes; unset it, or use torchrun")
    return int(text)
