"""Extracts the answer from a model's text: what follows its last thought, without special tokens around it.

A thought is text between marks such as ``<think>`` and ``</think>``.
"""

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
"""The marks with which Qwen, R1, Seed, Magistral, Kimi, Sky-T1, Command, gpt-oss and Gemma open and close thoughts."""
_MARK = (
    r"(?:<\|[\w .:/-]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|</?s>|<(?:bos|eos|pad|unk|start_of_turn|end_of_turn|turn\|)>"
    r"|<\|(?:turn|channel)>|\[/?INST\]|\[EOS\])"
)
"""Matches a special token of a chat template; some servers leave them in the text."""
_BEFORE = re.compile(rf"(?:\s*{_MARK}(?:(?:assistant|model)(?=\s|<))?)*\s*", re.I)
_LAST = re.compile(rf"{_MARK}\Z", re.I)
_LONGEST_MARK = 50


def extract_answer(text: str) -> str:
    """Return the text after the last thought, without special tokens and white space around it.

    Raises:
        GridError: ``unparsed``: the last thought is not closed, so there is no answer.
    """
    if not _has_marks(text):
        return text.strip()
    if ends_in_thought(text):
        raise GridError("unparsed", "the thought is not closed, and no answer follows it")
    return _without_marks(text[_end_of_thoughts(text) :])


def ends_in_thought(text: str) -> bool:
    """Return whether a text opens a thought that it does not close."""
    return _has_marks(text) and _OPEN.search(text, _end_of_thoughts(text)) is not None


def _has_marks(text: str) -> bool:
    """Return whether the text can contain a mark. A quick test, because most answers contain none."""
    return "<" in text or "[" in text or "◁" in text


def _end_of_thoughts(text: str) -> int:
    """Return the index after the last closing mark, 0 if there is none."""
    return max((match.end() for match in _CLOSE.finditer(text)), default=0)


def _without_marks(text: str) -> str:
    """Strip special tokens and white space at both ends.

    At the end, the search starts ``_LONGEST_MARK`` characters before it, so that the time stays linear in the length.
    """
    before = _BEFORE.match(text)
    text = text[before.end() if before else 0 :].rstrip()
    while text.endswith((">", "]")) and (last := _LAST.search(text, max(0, len(text) - _LONGEST_MARK))):
        text = text[: last.start()].rstrip()
    return text
