"""A generated part of a page, between two marks that name the command that writes it."""

from __future__ import annotations

END = "<!-- end -->"


def begin_mark(module: str) -> str:
    """Return the mark before the part that a module writes."""
    return f"<!-- python -m {module} -->"


def replace_block(text: str, block: str, module: str) -> str:
    """Return a page with the text between a module's mark and the next end replaced.

    Raises:
        ValueError: the page lacks the marks, or has the first one twice.
    """
    begin = begin_mark(module)
    before, mark, rest = text.partition(begin)
    _, end, after = rest.partition(END)
    if not mark or not end or begin in after:
        raise ValueError(f"the page must have {begin} once, and then {END}")
    return f"{before}{begin}\n\n{block}\n\n{END}{after}"
