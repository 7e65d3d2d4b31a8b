"""BARC's published files: their names on Hugging Face, where they are found on a machine, and how they get there."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import DataError, MissingExtraError, SpecError
from harness.core.files import cache_dir

BARC_FILES = {
    "barc0/100k-gpt4-description-gpt4omini-code_generated_problems": (
        "100k-gpt4-description-gpt4omini-code_generated_problems.jsonl",
    ),
    "barc0/100k-gpt4omini-description-gpt4omini-code_generated_problems": ("100k_gpt4o-mini_generated_problems.jsonl",),
    "barc0/200k_HEAVY_gpt4o-description-gpt4omini-code_generated_problems": (
        "data_100k.jsonl",
        "data_suggestfunction_100k.jsonl",
    ),
}
"""Hugging Face data set name to the files of rows in it."""


def barc_folder() -> Path:
    """Where files may be placed by hand: ``barc`` in the cache folder."""
    return cache_dir() / "barc"


def local_file(repo: str, name: str) -> Path | None:
    """The file on this machine, placed by hand or in Hugging Face's cache; None where it is not."""
    placed = barc_folder() / name
    if placed.is_file():
        return placed
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(repo, name, repo_type="dataset")
    return Path(found) if isinstance(found, str) else None


def barc_paths(repo: str) -> list[str]:
    """The files of one Hugging Face data set.

    Raises:
        SpecError: not one of BARC's. DataError: a file of it is not on this machine.
    """
    if repo not in BARC_FILES:
        raise SpecError(f"dataset {repo!r} is not known; BARC's are: {', '.join(BARC_FILES)}")
    found = [(name, local_file(repo, name)) for name in BARC_FILES[repo]]
    if missing := [name for name, path in found if path is None]:
        raise DataError(
            f"{repo}: not on this machine; run `bench data fetch barc`, or place {', '.join(missing)} "
            f"in {barc_folder()}"
        )
    return [str(path) for _, path in found]


def fetch_barc() -> list[Path]:
    """Download the four files (about 12 GB) into Hugging Face's cache, resuming what was begun; present ones are kept.

    A mirror or an offline cache is chosen by huggingface_hub's own environment variables (``HF_ENDPOINT``, ``HF_HOME``,
    ``HF_HUB_OFFLINE``).

    Raises:
        MissingExtraError: huggingface_hub is not installed. DataError: no network; says which files to place where.
    """
    try:
        from httpx import HTTPError
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
    except ImportError:
        raise MissingExtraError("bench data fetch needs huggingface_hub; pip install -e '.[train]'") from None
    paths = []
    for repo, names in BARC_FILES.items():
        for name in names:
            path = local_file(repo, name)
            if path is None:
                try:
                    path = Path(hf_hub_download(repo, name, repo_type="dataset"))
                except (LocalEntryNotFoundError, OfflineModeIsEnabled, HTTPError, OSError) as error:
                    raise _no_network(error) from error
            paths.append(path)
    return paths


def _no_network(error: Exception) -> DataError:
    missing = [
        f"{name} (Hugging Face data set {repo})"
        for repo, names in BARC_FILES.items()
        for name in names
        if local_file(repo, name) is None
    ]
    why = str(error).strip().split("\n")[0][:120]
    return DataError(
        f"cannot download BARC ({type(error).__name__}: {why}); place {', '.join(missing)} in {barc_folder()}"
    )
