"""The vLLM options that users may pass on behind the ``--``, and the few that they may not."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.errors import ConfigError

_REFUSED = {
    ("--data-parallel-size", "-dp", "--api-server-count", "-asc"): (
        "give --data-parallel-size before the --; one API process holds the adapters of all engines"
    ),
    ("--host", "--port"): "give it before the --; where a server listens decides whether it needs a key",
    ("--api-key",): "is seen in the list of processes; set ARC_BENCH_API_KEY, or ARC_BENCH_API_KEY_FILE to a file",
    ("--lora-dtype",): "vLLM's kernels take adapters in the dtype of the model only; give --dtype",
    ("--enable-prompt-embeds",): "makes the server read PyTorch files out of requests",
    (
        "--generation-config",
    ): "is always vllm here; sampling options of the model's folder would change answers unasked",
}


def refuse_reserved_options(extra: Sequence[str]) -> None:
    """Refuse options that would undo what ``bench serve`` promises.

    Raises:
        ConfigError: which, and why.
    """
    for word in extra:
        name = _name(word)
        for options, why in _REFUSED.items():
            if any(_means(name, option) for option in options):
                raise ConfigError(f"{word.split('=')[0]}: {why}")


def option_value(extra: Sequence[str], option: str, short: str | None = None) -> str | None:
    """Return the value that ``extra`` gives to an option, as "--option value" or "--option=value"; the last wins."""
    value = None
    for k, word in enumerate(extra):
        if not (_means(_name(word), option) or (short is not None and _name(word) == short)):
            continue
        _, equals, after = word.partition("=")
        value = after if equals else extra[k + 1] if k + 1 < len(extra) else None
    return value


def has_option(extra: Sequence[str], option: str) -> bool:
    """Return whether ``extra`` names an option, or a part of one as in "--option.part=value"."""
    return any(_means(_name(word).partition(".")[0], option) for word in extra)


def _name(word: str) -> str:
    return word.split("=")[0].replace("_", "-")  # vLLM takes both spellings


def _means(name: str, option: str) -> bool:
    """Whether vLLM's parser takes ``name`` for ``option``: it takes abbreviations too."""
    return name == option or (len(name) > 3 and name.startswith("--") and option.startswith(name))
