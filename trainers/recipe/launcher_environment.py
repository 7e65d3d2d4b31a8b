"""Read torchrun's variables from the environment and remove those of other launchers.

``accelerate launch``, MPI and Kubernetes set variables that accelerate obeys: they would change the precision or the
device of the recipe, or make it wait for processes that were never started.
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
"""Variables that have a meaning only beside WORLD_SIZE."""
_HARMLESS = frozenset({"ACCELERATE_LOG_LEVEL", "ACCELERATE_DEBUG_MODE", "ACCELERATE_ENABLE_RICH"})
_OFF = frozenset({"", "0", "no", "none", "false"})
"""Values that change nothing, so that no warning is needed."""


def process_count() -> int:
    """Return the number of training processes that were launched.

    Raises:
        ConfigError: WORLD_SIZE is not a number above 0.
    """
    return _number("WORLD_SIZE", 1, least=1)


def is_first_process() -> bool:
    """Return whether this is training process 0, or the only one.

    Raises:
        ConfigError: WORLD_SIZE or RANK is not a number.
    """
    return process_count() == 1 or _number("RANK", 0, least=0) == 0


def remove_launcher_variables(environ: MutableMapping[str, str] | None = None) -> None:
    """Remove variables that would override the recipe or torchrun, and print a warning about those with an effect.

    Args:
        environ: the environment to change; None for this process's.
    """
    environ = os.environ if environ is None else environ
    names = [name for name in environ if _DECIDES.fullmatch(name) and name not in _HARMLESS]
    names += [name for name in _TORCHRUN if name in environ and "WORLD_SIZE" not in environ]
    ignored = [f"{name}={environ[name]}" for name in sorted(names) if not _is_off(name, environ[name])]
    for name in names:
        del environ[name]
    if ignored and is_first_process():
        first_five = ", ".join(ignored[:5]) + (f" and {len(ignored) - 5} more" if len(ignored) > 5 else "")
        print(
            f"warning: not used: {first_five} in the environment; the recipe decides, and processes are those of "
            "torchrun",
            file=sys.stderr,
        )


def _is_off(name: str, value: str) -> bool:
    return value.lower() in _OFF or (value == "1" and name.endswith(("SIZE", "STEPS", "LOCALNRANKS")))


def _number(name: str, default: int, *, least: int) -> int:
    text = os.environ.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < least:
        raise ConfigError(f"{name}={text!r} in the environment is no number of processes; unset it, or use torchrun")
    return int(text)
