"""Prepare the output folder of a run: new, to be resumed, or finished."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from pathlib import Path

from harness.core.errors import ConfigError, RunError
from trainers.recipe.launcher_environment import is_first_process
from trainers.recipe.schema import MICRO_BATCH_KEYS, RecipeData, changed_keys
from trainers.store.manifest import MANIFEST, PARITY, check_unchanged, read_manifest, write_json

STARTED = "training.json"
"""File written when training starts, with everything that affects the trained weights; compared on resume."""
CHECKPOINTS = "checkpoints"
TEMPLATE_KEY, DATE_KEY = "chat template (its text)", "template_date"
"""Keys in STARTED since chat templates are recorded; runs of older versions resume without them."""
_LOCK = ".lock"
_LOCK_POLL_SECONDS = 0.2
_CONTENT = "{} (its content)"
"""Key of the digest of the content of ``model``, ``adapter``, ``datasets.0.spec`` or ``validation.spec``."""


@contextmanager
def lock_folder(output: Path) -> Iterator[None]:
    """Hold a lock on the output folder, which is created if missing. The system releases it when the process dies.

    Only the first process of a training run takes the lock.

    Raises:
        RunError: another process trains in the folder. ConfigError: the folder cannot be written.
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
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by forked workers
        except (BlockingIOError, PermissionError):  # POSIX allows both for a lock held by another process
            file.seek(0)
            holder = file.read(20).decode(errors="replace").strip() or "unknown"
            raise RunError(f"{output}: process {holder} trains in this folder; wait or stop it") from None
        except OSError as error:
            raise ConfigError(f"output_dir {output} cannot be locked: {error.strerror}") from None
        with suppress(OSError):  # disk full: the lock holds without the process id
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
        yield


@contextmanager
def lock_when_free(output: Path, seconds: float) -> Iterator[None]:
    """Hold the lock of a folder as ``lock_folder`` does, but wait for an earlier process that is about to end.

    Raises:
        RunError: another process still trains there after ``seconds``. ConfigError: as ``lock_folder``.
    """
    until = time.monotonic() + seconds
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_folder(output))
                break
            except RunError:
                if time.monotonic() >= until:
                    raise
                time.sleep(_LOCK_POLL_SECONDS)
        yield


def prepare_folder(output: Path, deciding_values: RecipeData, *, resume: bool, commit: str | None = None) -> bool:
    """Prepare the output folder to start or resume a run; return True if it already holds the finished result.

    Args:
        deciding_values: everything that affects the trained weights, flat.
        commit: commit of a base from the Hub, by which older versions recorded it.

    Raises:
        ConfigError: the folder holds a run of another recipe (the message names the keys), or cannot be written.
        AdapterError: its finished weights are damaged.
    """
    first = is_first_process()
    started = output / STARTED
    deciding_values = json.loads(json.dumps(deciding_values))
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not resume:
            if first:
                clear_folder(output)
        elif started.exists() and _has_trained(output):
            before = json.loads(started.read_text(encoding="utf-8"))
            unknown = {TEMPLATE_KEY, DATE_KEY} if TEMPLATE_KEY not in before else set()
            known = {key: value for key, value in deciding_values.items() if key not in unknown}
            changed = _changed_content(before, known, commit)
            if deciding := [key for key in changed if key not in MICRO_BATCH_KEYS]:
                raise ConfigError(
                    f"{output} holds a run of another recipe; changed: {', '.join(deciding)}. "
                    "Give another output_dir, or resume=false to start over in it"
                )
            if (manifest := read_manifest(output)) is not None:
                check_unchanged(output, manifest)
                return True
            if first:
                _warn_other_micro_batches(before, deciding_values, changed)
        elif (output / MANIFEST).exists():
            raise ConfigError(f"{output} holds a finished result without {STARTED}; give another output_dir")
        if first:
            write_json(started, deciding_values)
    except OSError as error:
        raise ConfigError(f"output_dir {output} cannot be written: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{started} cannot be read ({error}); give another output_dir, or resume=false") from error
    return False


def start_date(output: Path) -> str | None:
    """Return the date on which the run in a folder started; for runs that did not record it, that of the last start."""
    started = output / STARTED
    if not started.is_file() or not _has_trained(output):
        return None
    try:
        recorded = json.loads(started.read_text(encoding="utf-8")).get(DATE_KEY)
        return str(recorded or date.fromtimestamp(started.stat().st_mtime).isoformat())
    except (OSError, ValueError, AttributeError):  # prepare_folder reports it
        return None


def _warn_other_micro_batches(before: RecipeData, after: RecipeData, changed: Sequence[str]) -> None:
    """Warn if a run is resumed with other micro-batches; keys that an older version did not record are skipped."""
    if known := [f"{key} {before[key]} -> {after[key]}" for key in changed if key in before]:
        print(
            f"warning: resuming with {', '.join(known)}: dropout, where there is any, draws other masks from here on, "
            "so that the result is not that of the run as it was begun; without dropout only rounding differs",
            file=sys.stderr,
        )


def _changed_content(before: RecipeData, after: RecipeData, commit: str | None) -> list[str]:
    """Return the keys that differ, except names of a base, adapter or dataset whose content is the same."""
    if commit is not None and before.get(_CONTENT.format("model")) == commit:
        before = {**before, _CONTENT.format("model"): after.get(_CONTENT.format("model"))}

    def has_moved(key: str) -> bool:
        contents = [data.get(_CONTENT.format(key.removesuffix(".spec"))) for data in (before, after)]
        return contents[0] is not None and contents[0] == contents[1]

    return [key for key in changed_keys(before, after) if not has_moved(key)]


def _has_trained(output: Path) -> bool:
    """Return whether the folder has a checkpoint or a result; without one, the recipe may still be changed."""
    of_result = (output / name for name in (MANIFEST, _CLEARED))
    return any(path.exists() for path in of_result) or any((output / CHECKPOINTS).glob("checkpoint-*"))


_WEIGHTS = (
    *("adapter_model.safetensors", "adapter_config.json", "model.safetensors", "model-*-of-*.safetensors"),
    *("model.safetensors.index.json", "config.json", "generation_config.json"),
)
"""Names under which transformers and PEFT write weights and their configuration."""
_CLEARED = f".{MANIFEST}.cleared"
"""Name of the manifest of a result that is being removed; a kill may leave it, and the next start removes the rest."""


def clear_folder(output: Path) -> None:
    """Remove the records, weights and checkpoints of an earlier run; its log stays until it is overwritten.

    transformers would put an adapter that stayed beside the weights of a full model on top of them. What is in a folder
    in which no run of ours came as far as a checkpoint is somebody's.
    """
    if _has_trained(output):
        if (output / MANIFEST).exists():
            (output / MANIFEST).replace(output / _CLEARED)  # first: without it the folder is not complete
        for path in (path for pattern in _WEIGHTS for path in output.glob(pattern)):
            path.unlink()
    for name in (MANIFEST, _CLEARED, STARTED, PARITY):
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(output / CHECKPOINTS, ignore_errors=True)
