"""The answer in what a model wrote: what stands behind its thoughts, without the marks around its turn."""

from __future__ import annotations

import re

from harness.core.errors import GridError

_NAMES = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning|analysis)"
_OPEN = re.compile(
    rf"<{_NAMES}>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|START_THINKING|channel\|>analysis)|<\|channel>thought", re.I
)
_CLOSE = re.compile(
    rf"</{_NAMES}>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|END_THINKING)\|>|<\|channel\|>final<\|message\|>|<channel\|>",
    re.I,
)
"""As Qwen, R1, Seed, Magistral, Kimi, Sky-T1, Command, gpt-oss and Gemma write thoughts."""
_MARK = (
    r"(?:<\|[\w .:/-]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn|turn\|)>"
    r"|<\|(?:turn|channel)>|\[/?INST\]|\[EOS\])"
)
"""Special tokens of chat templates, which some servers leave in the text."""
_BEFORE = re.compile(rf"(?:\s*{_MARK}(?:(?:assistant|model)(?=\s|<))?)*\s*", re.I)
_LAST = re.compile(rf"{_MARK}\Z", re.I)
_LONGEST_MARK = 50


def extract_answer(text: str) -> str:
    """Return what follows the last thought of a text, without the special tokens and white space around it.

    Raises:
        GridError: ``unparsed``, a thought that was begun last is not closed, so that there is no answer.
    """
    if not _has_marks(text):
        return text.strip()
    if ends_in_thought(text):
        raise GridError("unparsed", "the thought is not closed, and no answer follows it")
    return _without_marks(text[_end_of_thoughts(text) :])


def ends_in_thought(text: str) -> bool:
    """Whether a text ends within a thought."""
    return _has_marks(text) and _OPEN.search(text, _end_of_thoughts(text)) is not None


def _has_marks(text: str) -> bool:
    return "<" in text or "[" in text or "◁" in text


def _end_of_thoughts(text: str) -> int:
    return max((match.end() for match in _CLOSE.finditer(text)), default=0)


def _without_marks(text: str) -> str:
    before = _BEFORE.match(text)
    text = text[before.end() if before else 0 :].rstrip()
    while text.endswith((">", "]")) and (last := _LAST.search(text, max(0, len(text) - _LONGEST_MARK))):
        text = text[: last.start()].rstrip()
    return text
