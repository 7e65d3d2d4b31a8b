"""vLLM options that users pass after ``--``: which are refused, and reading those that matter here."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.errors import ConfigError

_REFUSED = {
    ("--data-parallel-size", "-dp", "--api-server-count", "-asc"): (
        "give --data-parallel-size before the --; one API process holds the adapters of all engines"
    ),
    (
        "--ssl-certfile",
        "--ssl-keyfile",
        "--ssl-ca-certs",
    ): "the server speaks plain HTTP; TLS is for a proxy before it",
    ("--uds", "--root-path", "--headless"): "would take the API away from the address at which it is awaited",
    ("--config",): "would hide options from the checks here; write them on the command line",
    ("--host", "--port"): "give it before the --; the address decides whether a server needs a key",
    ("--api-key",): "is seen in the list of processes; set ARC_BENCH_API_KEY, or ARC_BENCH_API_KEY_FILE to a file",
    ("--lora-dtype",): "vLLM's kernels take adapters in the dtype of the model only; give --dtype",
    ("--enable-prompt-embeds",): "makes the server read PyTorch files out of requests",
    ("--generation-config",): "is always vllm here; sampling options in the model's folder would change answers",
}
"""Refused options with the reason."""


def refuse_reserved_options(extra: Sequence[str]) -> None:
    """Refuse options that would break a guarantee of ``bench serve``, such as that other machines need a key.

    Raises:
        ConfigError: which option, and why.
    """
    for word in extra:
        name = _option_name(word)
        for options, why in _REFUSED.items():
            if any(_is_option(name, option) for option in options):
                raise ConfigError(f"{word.split('=')[0]}: {why}")


def option_value(extra: Sequence[str], option: str, short: str | None = None) -> str | None:
    """Return the last value given to an option, as "--option value" or "--option=value"; None if it is absent."""
    value = None
    for k, word in enumerate(extra):
        if not (_is_option(_option_name(word), option) or (short is not None and _option_name(word) == short)):
            continue
        _, equals, after = word.partition("=")
        value = after if equals else extra[k + 1] if k + 1 < len(extra) else None
    return value


def has_option(extra: Sequence[str], option: str) -> bool:
    """Return whether an option is present, also with a part as in "--option.part=value"."""
    return any(_is_option(_option_name(word).partition(".")[0], option) for word in extra)


def _option_name(word: str) -> str:
    """Return an option's name with dashes; vLLM accepts underscores too."""
    return word.split("=")[0].replace("_", "-")


def _is_option(name: str, option: str) -> bool:
    """Return whether vLLM's parser reads ``name`` as ``option``; it accepts abbreviations."""
    return name == option or (len(name) > 3 and name.startswith("--") and option.startswith(name))
