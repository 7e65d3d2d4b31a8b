"""Loads a tokenizer and chat template from a model's files without importing transformers, which takes seconds.

Prompts are sent as token ids only if the server's own tokenizer gives the same ids
(harness.sampling.requests.api_selection), so a file that is read differently here than by transformers does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.core.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import AddedToken, Tokenizer

_FILES = ("tokenizer.json", "tokenizer_config.json")
_SETTINGS = ("generation_config.json", "config.json")
_TEMPLATE = "chat_template.jinja"


class FileTokenizer:
    """A ``ChatTokenizer`` from ``tokenizer.json`` and the chat template of a model folder.

    Args:
        folder: the model's folder.
        template_kwargs: variables of the chat template, as in ``chat_template_kwargs`` of a request.
        template: text of a chat template to use instead of the folder's.

    Raises:
        MissingExtraError: the package ``tokenizers`` is not installed.
        ConfigError: a file is missing or cannot be read; the message names it.
    """

    def __init__(
        self, folder: Path, template_kwargs: Mapping[str, object] | None = None, *, template: str | None = None
    ) -> None:
        self._tokenizer = _read_tokenizer(folder / _FILES[0])
        config = _read_json(folder / _FILES[1])
        self._template = _compile_template(_template_text(folder, config) if template is None else template, folder)
        self._special = {name: _token_text(config.get(name)) for name in config if name.endswith("_token")}
        self._kwargs = dict(template_kwargs or {})

    @property
    def all_special_ids(self) -> set[int]:
        """The ids of special tokens."""
        return {id_ for id_, token in self.added_tokens_decoder.items() if token.special}

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens added to the vocabulary, by id."""
        return dict(self._tokenizer.get_added_tokens_decoder())

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool, **variables: object
    ) -> str:
        """Return the conversation as text (``tokenize`` must be False)."""
        if tokenize:
            raise ValueError("only text is made here; encode it afterwards")
        context = {"tools": None, "documents": None, **self._special, **self._kwargs, **variables}
        return str(self._template.render(messages=conversation, add_generation_prompt=add_generation_prompt, **context))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(
        self, token_ids: Sequence[int], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """Return the text of token ids. Blanks are always kept."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens))


def find_tokenizer_folder(root: str) -> Path | None:
    """Return the folder with a model's tokenizer, or None if it is not on this machine. Nothing is downloaded.

    Args:
        root: the model as a server names it: a folder, or a hub id, which is looked up in the local cache.
    """
    folder = Path(root).expanduser()
    if all((folder / name).is_file() for name in _FILES):
        return folder
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        paths = [try_to_load_from_cache(root, name) for name in _FILES]
    except HFValidationError:  # a path on another machine is not a hub id
        return None
    return Path(paths[0]).parent if isinstance(paths[0], str) and isinstance(paths[1], str) else None


def eos_token_ids(folder: Path) -> frozenset[int]:
    """Return the ids of the tokens at which a server stops by default: the tokenizer's eos token and the model's.

    The model's eos tokens are those in generation_config.json, or in config.json if there is no generation_config.json.

    Raises:
        MissingExtraError, ConfigError: as ``FileTokenizer``.
    """
    eos = _token_text(_read_json(folder / _FILES[1]).get("eos_token"))
    ids = [_read_tokenizer(folder / _FILES[0]).token_to_id(eos)] if isinstance(eos, str) else []
    path = next((path for name in _SETTINGS if (path := folder / name).is_file()), None)
    settings = {} if path is None else _read_json(path)
    text = settings.get("text_config")
    model_eos = settings.get("eos_token_id", text.get("eos_token_id") if isinstance(text, dict) else None)
    ids += model_eos if isinstance(model_eos, list) else [model_eos]
    return frozenset(id_ for id_ in ids if type(id_) is int)


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtraError("the package 'tokenizers' is not installed (pip install tokenizers)") from None
    try:
        return Tokenizer.from_buffer(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected an object")
    return data


def _template_text(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the chat template from its own file, or from the configuration (the ``default`` one if it has several)."""
    if (folder / _TEMPLATE).is_file():
        return (folder / _TEMPLATE).read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((entry.get("template") for entry in template if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise ConfigError(f"{folder} has no chat template")
    return template


def _token_text(value: object) -> object:
    """Return the text of a special token in tokenizer_config.json: the value itself, or its field ``content``."""
    return value.get("content") if isinstance(value, dict) else value


def _compile_template(text: str, folder: Path) -> Template:
    """Compile a chat template in the same Jinja environment as transformers does."""
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    env.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    try:
        return env.from_string(text)
    except TemplateSyntaxError as error:
        raise ConfigError(f"the chat template of {folder}: {error}") from None
