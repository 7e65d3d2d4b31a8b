"""Renders prompts from templates and decodes answers. Trainer and harness share it, so that their prompts are equal.

A prompt is a versioned Jinja template in ``harness/prompts/templates/NAME.txt``. Lines ``<<system>>``, ``<<user>>`` and
``<<assistant>>`` begin the messages of a chat; the last message is the assistant's answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.core.digests import text_digest
from harness.core.errors import SpecError
from harness.core.grid import Grid, Task
from harness.prompts.grid_text import GridEncoder, GridWriter
from harness.prompts.lenient_decoder import decode_lenient
from harness.prompts.reasoning import extract_answer

PROMPT_DIR = Path(__file__).parent / "templates"
DEFAULT_PROMPT = "output-from-examples-v1"
_ROLE = re.compile(r"^<<(system|user|assistant)>>\n", re.MULTILINE)
_ANSWER = "\x00answer\x00"
_TEST_INPUT = "\x00test input\x00"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """A prompt template and its name."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """The first 16 hex digits of the template's SHA-256, which identify its exact text in manifests."""
        return text_digest(self.text)

    def messages(self, task: Task, test_index: int, encoder: GridWriter) -> tuple[Message, ...]:
        """Return the messages that a model reads for one test pair: all but the answer."""
        return self._render_messages(task, test_index, encoder)[:-1]

    def answer(self, task: Task, test_index: int, encoder: GridWriter) -> str:
        """Return the text that the model should answer.

        Raises:
            SpecError: the answer is not known.
        """
        grid = self.answer_grid(task, test_index)
        return self._render_messages(task, test_index, encoder)[-1].content.replace(_ANSWER, encoder.encode(grid))

    def answer_grid(self, task: Task, test_index: int) -> Grid:
        """Return the grid of the answer: the test pair's output, or its input if the prompt asks for an input.

        Raises:
            SpecError: the answer is not known.
        """
        if not self.has_answer(task, test_index):
            raise SpecError(f"task {task.id}: test {test_index} has no output, so that nothing can be learned from it")
        pair = task.test[test_index]
        return pair.input if self.asks_input or pair.output is None else pair.output

    def has_answer(self, task: Task, test_index: int) -> bool:
        """Return whether the answer is known."""
        return self.asks_input or task.test[test_index].output is not None

    @property
    def shows_test_input(self) -> bool:
        """Whether the messages contain the test input. Prompts without it only serve for training."""
        rendered = _compile_template(self.text).render(train=[], test={"input": _TEST_INPUT}, answer=_ANSWER)
        return any(_TEST_INPUT in content for content in _ROLE.split(rendered)[2:-1:2])

    @property
    def asks_input(self) -> bool:
        """Whether the model is asked for a test input instead of a test output."""
        return self.name.startswith("input-")

    def decode(self, text: str, encoder: GridEncoder, *, lenient: bool = False) -> Grid:
        """Return the grid in a model's answer, after its thoughts and the answer's fixed text.

        Args:
            lenient: decode as the original scripts did (``decode_lenient``).

        Raises:
            GridError: ``unparsed``, ``bad_shape`` or ``bad_value``.
        """
        text = extract_answer(text)
        heading = self._heading().match(text)
        body = text[heading.end() :] if heading else text
        return decode_lenient(body, encoder) if lenient else encoder.decode(body)

    def _heading(self) -> re.Pattern[str]:
        """Return a pattern of the answer's text before its grid. Template expressions match any text within a line."""
        last = _ROLE.split(self.text)[-1]
        parts = re.split(r"\{\{.*?\}\}", last.partition("{{ answer }}")[0])
        return re.compile(r"[^\n]*".join(map(re.escape, parts)))

    def _render_messages(self, task: Task, test_index: int, encoder: GridWriter) -> tuple[Message, ...]:
        """Return all messages, with a placeholder for the grid of the answer."""

        def pair(source: Grid, target: Grid | None) -> dict[str, str]:
            return {"input": encoder.encode(source), "output": "" if target is None else encoder.encode(target)}

        test = {"input": encoder.encode(task.test[test_index].input)}
        train = [pair(p.input, p.output) for p in task.train]
        parts = _ROLE.split(_compile_template(self.text).render(train=train, test=test, answer=_ANSWER))
        return tuple(Message(r, c.strip("\n")) for r, c in zip(parts[1::2], parts[2::2], strict=True))


def prompt_names() -> list[str]:
    """Return the names of the shipped prompts."""
    return sorted(path.stem for path in PROMPT_DIR.glob("*.txt"))


def nosystem_prompt(name: str) -> str | None:
    """Return the name of the variant of a prompt without a system message, or None if there is none."""
    head, _, version = name.rpartition("-")
    variant = f"{head}-nosystem-{version}"
    return variant if variant in prompt_names() else None


def inference_prompt(names: Sequence[str]) -> str:
    """Return the prompt for sampling an adapter: the first of its training prompts that shows the test input."""
    return next((name for name in names if load_prompt(name).shows_test_input), names[0])


@cache
def load_prompt(name: str) -> Prompt:
    """Return a shipped prompt.

    Raises:
        SpecError: the name is unknown; the message lists the known ones.
    """
    if name not in prompt_names():
        raise SpecError(f"prompt {name!r} is not known; known: {', '.join(prompt_names())}")
    return Prompt(name, (PROMPT_DIR / f"{name}.txt").read_text(encoding="utf-8"))


@cache
def _compile_template(text: str):  # type: ignore[no-untyped-def]
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return env.from_string(text)
