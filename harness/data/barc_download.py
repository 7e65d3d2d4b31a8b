"""BARC's published files: their names on Hugging Face, their place on this machine, and their download."""

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
"""The names of the files of rows, by the name of their Hugging Face dataset."""


def barc_folder() -> Path:
    """Return the folder in which users can place BARC's files by hand: ``barc`` in the cache folder."""
    return cache_dir() / "barc"


def local_file(repo: str, name: str) -> Path | None:
    """Return the path of a BARC file in ``barc_folder()`` or in Hugging Face's cache, or None if it is in neither."""
    placed = barc_folder() / name
    if placed.is_file():
        return placed
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    cached = try_to_load_from_cache(repo, name, repo_type="dataset")
    return Path(cached) if isinstance(cached, str) else None


def barc_paths(repo: str) -> list[str]:
    """Return the local paths of the files of one Hugging Face dataset.

    Raises:
        SpecError: it is not one of BARC's. DataError: a file of it is not on this machine.
    """
    if repo not in BARC_FILES:
        raise SpecError(f"dataset {repo!r} is not known; BARC's are: {', '.join(BARC_FILES)}")
    paths = {name: local_file(repo, name) for name in BARC_FILES[repo]}
    if missing := [name for name, path in paths.items() if path is None]:
        raise DataError(
            f"{repo}: not on this machine; run `bench data fetch barc`, or place {', '.join(missing)} "
            f"in {barc_folder()}"
        )
    return [str(path) for path in paths.values()]


def fetch_barc() -> list[Path]:
    """Download the missing ones of the four files (about 12 GB in all) into Hugging Face's cache; return all paths.

    An interrupted download is resumed. huggingface_hub's own environment variables choose a mirror or an offline cache
    (``HF_ENDPOINT``, ``HF_HOME``, ``HF_HUB_OFFLINE``).

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        DataError: the download failed; the message says which files to place where.
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
                    raise _download_error(error) from error
            paths.append(path)
    return paths


def _download_error(error: Exception) -> DataError:
    """Return the error of a failed download, which names the files to place by hand."""
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
