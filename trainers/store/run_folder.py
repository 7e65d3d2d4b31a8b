"""The output folder of a run: fresh, to be gone on in, or finished."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

from harness.core.errors import ConfigError, RunError
from trainers.recipe.launcher_environment import is_first_process
from trainers.recipe.schema import MICRO_BATCH_KEYS, RecipeData, changed_keys
from trainers.store.manifest import MANIFEST, PARITY, check_unchanged, read_manifest, write_json

STARTED = "training.json"
"""Written when training starts: what decides the run, to compare with when it is gone on with."""
CHECKPOINTS = "checkpoints"
TEMPLATE_KEY, DATE_KEY = "chat template (its text)", "template_date"
"""What STARTED has since chat templates are recorded; a run of before goes on without."""
_LOCK = ".lock"
_CONTENT = "{} (its content)"
"""The key of the digest of what stands behind ``model``, ``adapter``, ``datasets.0.spec`` or ``validation.spec``."""


@contextmanager
def lock_folder(output: Path) -> Iterator[None]:
    """Hold the output folder (made where it is missing) for this run; the system lets go when the process dies.

    Raises:
        RunError: another process trains in it. ConfigError: it cannot be written.
    """
    if not is_first_process():
        yield
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = (output / _LOCK).open("ab+", buffering=0)
    except OSError as error:
        raise ConfigError(f"output_dir {output} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not shared with workers that are forked
        except (BlockingIOError, PermissionError):  # what POSIX lets it say of a lock held by another
            file.seek(0)
            holder = file.read(20).decode(errors="replace").strip() or "unknown"
            raise RunError(f"{output}: process {holder} trains in this folder; wait or stop it") from None
        except OSError as error:
            raise ConfigError(f"output_dir {output} cannot be locked: {error.strerror}") from None
        with suppress(OSError):  # no room: the lock holds all the same
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
        yield


def prepare_folder(output: Path, decides: RecipeData, *, resume: bool, commit: str | None = None) -> bool:
    """Make the output folder ready to start or go on in; True where it already holds the finished result.

    Args:
        decides: everything that decides what is learned, flat.
        commit: of a base from the hub, by which older versions recorded it.

    Raises:
        ConfigError: it holds a run of another recipe (the message names the keys), or cannot be written.
        AdapterError: its finished weights are damaged.
    """
    first = is_first_process()
    started = output / STARTED
    decides = json.loads(json.dumps(decides))
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not resume:
            if first:
                _clear(output)
        elif started.exists() and _has_trained(output):
            before = json.loads(started.read_text(encoding="utf-8"))
            unknown = {TEMPLATE_KEY, DATE_KEY} if TEMPLATE_KEY not in before else set()
            known = {key: value for key, value in decides.items() if key not in unknown}
            changed = _really_changed(before, known, commit)
            if deciding := [key for key in changed if key not in MICRO_BATCH_KEYS]:
                raise ConfigError(
                    f"{output} holds a run of another recipe; changed: {', '.join(deciding)}. "
                    "Give another output_dir, or resume=false to start over in it"
                )
            if (manifest := read_manifest(output)) is not None:
                check_unchanged(output, manifest)
                return True
            if first:
                _tell_passes(before, decides, changed)
        elif (output / MANIFEST).exists():
            raise ConfigError(f"{output} holds a finished result without {STARTED}; give another output_dir")
        if first:
            write_json(started, decides)
    except OSError as error:
        raise ConfigError(f"output_dir {output} cannot be written: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{started} cannot be read ({error}); give another output_dir, or resume=false") from error
    return False


def start_date(output: Path) -> str | None:
    """The date that the run in a folder began with; of a run that did not record it, that of its last start."""
    started = output / STARTED
    if not started.is_file() or not _has_trained(output):
        return None
    try:
        recorded = json.loads(started.read_text(encoding="utf-8")).get(DATE_KEY)
        return str(recorded or date.fromtimestamp(started.stat().st_mtime).isoformat())
    except (OSError, ValueError, AttributeError):  # said when the folder is prepared
        return None


def _tell_passes(before: RecipeData, after: RecipeData, changed: Sequence[str]) -> None:
    """Say that a run is resumed with other passes; runs of older versions did not record theirs."""
    if known := [f"{key} {before[key]} -> {after[key]}" for key in changed if key in before]:
        print(
            f"warning: resuming with {', '.join(known)}: dropout, where there is any, draws other masks from here on, "
            "so that the result is not that of the run as it was begun; without dropout only rounding differs",
            file=sys.stderr,
        )


def _really_changed(before: RecipeData, after: RecipeData, commit: str | None) -> list[str]:
    """The keys that differ, but for names of a base, an adapter or data that have moved: their content is the same."""
    if commit is not None and before.get(_CONTENT.format("model")) == commit:
        before = {**before, _CONTENT.format("model"): after.get(_CONTENT.format("model"))}

    def has_moved(key: str) -> bool:
        contents = [data.get(_CONTENT.format(key.removesuffix(".spec"))) for data in (before, after)]
        return contents[0] is not None and contents[0] == contents[1]

    return [key for key in changed_keys(before, after) if not has_moved(key)]


def _has_trained(output: Path) -> bool:
    """Whether there is anything to go on from or to keep; a recipe that was refused may be changed and tried again."""
    return (output / MANIFEST).exists() or any((output / CHECKPOINTS).glob("checkpoint-*"))


def _clear(output: Path) -> None:
    """Remove what an earlier run of ours left in the folder, and nothing else."""
    for name in (MANIFEST, STARTED, PARITY):
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
