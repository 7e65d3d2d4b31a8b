"""Open the chat template of a recipe with its tokenizer, and check it before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from harness.core.digests import text_digest
from harness.core.errors import ConfigError
from harness.prompts.assistant_turn import AssistantTurn
from harness.prompts.chat_template import TemplateSettings, reads_clock
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer, usable_prompt
from trainers.model.tokenizer import check_tokenizer_file, eos_ids, load_tokenizer
from trainers.recipe.schema import TEMPLATES, Recipe

_CHATML_END = "<|im_end|>"


@dataclass(frozen=True)
class Chat:
    """A tokenizer with the chat template and settings used in training and evaluation."""

    tokenizer: Any
    settings: TemplateSettings
    template: str
    """Text of the template in use."""
    overrides_model: bool
    """Whether the recipe names the template, so that the base model does not have it."""
    eos_ids: frozenset[int]
    """Tokens at which a server stops by the model's own files."""
    encoder: str
    """Text of the grid encoder, such as ``MinimalGridEncoder()``."""
    warnings: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Return the first 16 hex digits of the SHA-256 of the template."""
        return text_digest(self.template)

    def prompt_tokens(self, prompt: str, *, fast: bool = True) -> PromptTokenizer:
        """Return the tokenizer of a prompt.

        Args:
            fast: build token ids from a table where possible.
        """
        grids = parse_encoder(self.encoder)
        return PromptTokenizer(self.tokenizer, load_prompt(prompt), grids, settings=self.settings, fast=fast)

    def usable_prompt(self, prompt: str) -> str:
        """Return the prompt's name, or that of its variant without a system message if the template takes none."""
        return usable_prompt(self.tokenizer, load_prompt(prompt), parse_encoder(self.encoder), self.settings).name

    def turns(self, prompts: Sequence[str]) -> list[AssistantTurn]:
        """Return the assistant's turn of each distinct prompt: how the template begins and ends the answer.

        Raises:
            ConfigError: the template cannot be trained on.
        """
        return [self.prompt_tokens(prompt, fast=False).turn for prompt in dict.fromkeys(prompts)]

    def advice(self, turns: Sequence[AssistantTurn], requested: Sequence[str], used: Sequence[str]) -> list[str]:
        """Return what a user should know before training, one line each.

        Args:
            turns: those of the prompts in use.
            requested: prompts that the recipe names.
            used: the prompts that replace them, of the same length.
        """
        lines = list(self.warnings)
        lines += [
            f"the chat template takes no system message: {new} is used instead of {old}"
            for old, new in dict.fromkeys(zip(requested, used, strict=True))
            if old != new
        ]
        for turn in dict.fromkeys(turns):
            lines += self._on_turn(turn)
        if self.settings.date is not None:
            lines.append(
                f"the chat template writes the date: it is {self.settings.date} throughout training, and whenever the "
                "adapter is evaluated (template_date)"
            )
        return list(dict.fromkeys(lines))

    def _on_turn(self, turn: AssistantTurn) -> list[str]:
        lines = []
        if turn.end_token_id not in self.eos_ids:
            lines.append(
                f"the chat template ends an answer with {turn.answer_suffix.strip()!r} (token {turn.end_token_id}), "
                f"which is not among the model's eos tokens ({', '.join(map(str, sorted(self.eos_ids))) or 'none'}): "
                f"bench run asks servers to stop there, other clients must send stop_token_ids: [{turn.end_token_id}]"
            )
        if turn.opens_thought:
            lines.append(
                "the chat template opens a thought (<think>) before every answer and has no switch for it: the adapter "
                "learns to close it at once; the base model will think before it answers, which takes more tokens"
            )
        elif turn.learns_thought:
            switch = "enable_thinking" in self.template
            lines.append(
                "the chat template writes an empty thought (<think></think>) before an answer, which is learned with it"
                + ("; chat_template_kwargs: {enable_thinking: false} moves it into the prompt" if switch else "")
            )
        return lines


def open_chat(base: Path | str, recipe: Recipe, day: str, template: str | None = None) -> Chat:
    """Load the tokenizer of a base model with the chat template of a recipe.

    Args:
        day: today's date, for a template that prints it.
        template: text of the template if it is known; None for the one that the recipe names.

    Raises:
        ConfigError: there is no tokenizer or no template, the template has a syntax error, or transformers loads the
            tokenizer so that it loses text.
    """
    tokenizer = load_tokenizer(base)
    warnings = check_tokenizer_file(base, tokenizer)
    if template is None and recipe.chat_template is not None:
        template = read_template(recipe.chat_template, tokenizer)
    if template is not None:
        tokenizer.chat_template = template
    elif tokenizer.chat_template is None:
        raise ConfigError(
            f"model {str(base)!r}: its tokenizer has no chat template; set chat_template in the recipe, to chatml or a "
            "file with one"
        )
    _check_syntax("chat_template" if recipe.chat_template else f"the chat template of {str(base)!r}", tokenizer)
    kwargs = recipe.chat_template_kwargs
    fixed = day if reads_clock(tokenizer, kwargs) else None
    return Chat(
        tokenizer,
        TemplateSettings(kwargs, fixed),
        tokenizer.get_chat_template(),
        template is not None,
        frozenset(eos_ids(base, tokenizer)),
        recipe.encoder,
        tuple(warnings),
    )


def today() -> str:
    """Return the local date in ISO format."""
    return date.today().isoformat()


def read_template(name: str, tokenizer: Any) -> str:
    """Return the text of a chat template: a shipped one, or a file.

    The shipped ChatML ends turns with the tokenizer's own eos token if the tokenizer does not know ``<|im_end|>``.

    Raises:
        ConfigError: there is no such template.
    """
    shipped = TEMPLATES / f"{name}.jinja"
    if "/" not in name and shipped.is_file():
        text = shipped.read_text(encoding="utf-8")
        known = _CHATML_END in tokenizer.get_vocab()
        return text if known or not tokenizer.eos_token else text.replace(_CHATML_END, tokenizer.eos_token)
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        known_names = ", ".join(sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(
            f"chat_template {name!r}: {why}; give a file with a Jinja template, or {known_names}"
        ) from None
    return text


def _check_syntax(where: str, tokenizer: Any) -> None:
    """Refuse a chat template that cannot be parsed; errors on a specific prompt are reported later."""
    from jinja2 import TemplateSyntaxError

    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    except TemplateSyntaxError as error:
        raise ConfigError(f"{where}, line {error.lineno}: {error.message}") from None
    except Exception:  # noqa: BLE001  # a template may refuse a conversation in any way
        return
