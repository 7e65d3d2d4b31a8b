"""What the data commands do: the datasets that have a name, one task of a dataset, its figures, its rows checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.core.errors import ConfigError, DataError, MissingExtraError
from harness.core.grid import Task
from harness.data.barc_dataset import BarcDataset, open_barc
from harness.data.barc_download import HF_FILES, barc_paths, local_file
from harness.data.barc_reader import BadRow
from harness.data.dataset import ARC_SPECS, Dataset, TaskList, iterate, open_dataset
from harness.data.line_index import Progress
from harness.data.toy_tasks import FAMILIES
from harness.inspection.dataset_statistics import collect
from harness.prompts.grid_encoder import DEFAULT_ENCODER, parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer

Watch = Callable[[Iterable[Task], int], Iterable[Task]]
"""Passes tasks on and shows how far of a number it is."""


@dataclass(frozen=True, slots=True)
class Named:
    """One line of ``bench data list``."""

    spec: str
    tasks: int | None
    """None for a dataset of any size, or one that is not on this machine."""
    test_outputs: int | None
    note: str

    def as_dict(self) -> dict[str, object]:
        """The line for JSON."""
        return asdict(self)


def named_datasets() -> list[Named]:
    """The bundled sets with their counts, the toy families, and BARC's files with where they are."""
    rows = []
    for spec in ARC_SPECS:
        dataset = open_dataset(spec)
        outputs = sum(len(task.test) for task in iterate(dataset))
        rows.append(Named(spec, len(dataset.ids), outputs, dataset.origin))
    rows += [Named(f"toy/{family.name}", None, None, f"generated: {family.summary}") for family in FAMILIES.values()]
    for repo, names in HF_FILES.items():
        missing = [name for name in names if local_file(repo, name) is None]
        note = f"not here yet: {', '.join(missing)} (bench data fetch barc)" if missing else "on this machine"
        rows.append(Named(repo, None, None, note))
    return rows


def find_task(dataset: Dataset, task_id: str | None) -> Task:
    """The task of that id, the first one where it is None.

    Raises:
        DataError: there is no such task.
    """
    if task_id is None and (first := next(iterate(dataset), None)) is not None:
        return first
    for index, name in enumerate(dataset.ids):
        if name == task_id:
            return dataset.task(index)
    raise DataError(f"{dataset.spec}: no task {task_id!r}; its ids are such as {dataset.ids[0]!r}")


def load_tokens(tokenizer: str, prompt: str, encoder: str | None) -> PromptTokenizer:
    """A tokenizer from a folder or from Hugging Face, with prompt and grid encoder.

    Raises:
        MissingExtraError: transformers is not installed. ConfigError: there is no such tokenizer.
    """
    grids = parse_encoder(encoder or DEFAULT_ENCODER)
    text = load_prompt(prompt)
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise MissingExtraError("counting tokens needs transformers; pip install -e '.[train]'") from None
    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        why = str(error).strip().split("\n")[0]
        raise ConfigError(f"tokenizer {tokenizer!r}: cannot be loaded ({why}); name a folder or a model") from None
    return PromptTokenizer(loaded, text, grids)


def dataset_stats(dataset: Dataset, tokens: PromptTokenizer | None, max_length: int, watch: Watch) -> dict[str, object]:
    """The figures of every task in its fixed draw."""
    found = collect(watch(iterate(dataset), len(dataset.ids)), tokens)
    if not found.tasks:
        raise DataError(f"{dataset.spec}: no task could be read")
    head: dict[str, object] = {"spec": dataset.spec, "origin": dataset.origin, "digest": dataset.digest()}
    left_out = {} if isinstance(dataset, TaskList) else dict(getattr(dataset, "skipped", {}))
    return {**head, **found.as_dict(max_length), **({"left_out": left_out} if left_out else {})}


def open_rows(name: str, strict: bool, progress: Progress | None) -> BarcDataset:
    """The rows of a BARC file, or of a Hugging Face data set of BARC's.

    Raises:
        DataError: it is not there, not a .jsonl, or damaged.
    """
    if name in HF_FILES:
        return open_barc(name, barc_paths(name), strict=strict, progress=progress)
    if not name.endswith((".jsonl", ".jsonl.gz")) or not Path(name).is_file():
        raise DataError(f"{name}: not a .jsonl or .jsonl.gz file, nor one of BARC's names ({', '.join(HF_FILES)})")
    return open_barc(name, [name], strict=strict, progress=progress)


def check_rows(rows: BarcDataset, watch: Callable[[Iterable[object], int], Iterable[object]]) -> None:
    """Read every row, so that ``rows.skipped`` counts all that is left out."""
    for _ in watch(_read(rows), rows.n_rows):
        pass


def _read(rows: BarcDataset) -> Iterator[None]:
    for index in range(rows.n_rows):
        file, row = rows.locate(index)
        with suppress(BadRow):  # counted in ``skipped``
            file.pairs(row)
        yield None
