"""The markdown of a report as HTML: just the forms that reports use, everything else as plain text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import escape

_IMAGE = re.compile(r"(?:\[(?=!.*\]\())?!\[(?P<alt>[^\]]*)\]\((?P<name>[^)]*)\)(?:\]\([^)]*\))?")
"""A picture, which may be a link to another form of itself."""
_LINK = re.compile(r"\[([^\]]+)\]\(((?:https?://|#)[^)\s]*)\)")
_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")
_ITALIC = re.compile(r"(?<![\w*])\*(?=\S)([^*]+?)(?<=\S)\*(?![\w*])")
_HEADING = re.compile(r"(#{1,4}) (.+)")
_RULE = re.compile(r":?-+:?")

Embed = Callable[[str], str]
"""From the name of a picture to its address in the page; empty where it is not the report's, and stays text."""


def to_html(text: str, embed: Embed, taken: set[str]) -> str:
    """Headings, paragraphs, lists of one level, tables, code blocks and pictures; the rest is shown as it is.

    Args:
        embed: gives the address of a picture by its name.
        taken: the anchors of headings so far, to which the new ones are added.
    """
    return "\n".join(_block(block, embed, taken) for block in _blocks(text))


def inline(text: str) -> str:
    """Escaped text with code, bold, italics, and links to web pages and anchors."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # an odd backtick is no code
        return _marked(text)
    return "".join(f"<code>{escape(p)}</code>" if i % 2 else _marked(p) for i, p in enumerate(parts))


def anchor(heading: str, taken: set[str]) -> str:
    """The anchor of a heading: its letters and digits, with a number behind it where it is taken."""
    plain = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "part"
    name, k = plain, 1
    while name in taken:
        k += 1
        name = f"{plain}-{k}"
    taken.add(name)
    return name


def _marked(text: str) -> str:
    found = escape(text, quote=True)
    found = _LINK.sub(r'<a href="\2">\1</a>', found)
    return _ITALIC.sub(r"<em>\1</em>", _BOLD.sub(r"<strong>\1</strong>", found))


def _blocks(text: str) -> Iterator[list[str]]:
    """Groups of lines without empty ones between them; a code block is one group."""
    group: list[str] = []
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            if not fenced and group:
                yield group
                group = []
            group.append(line)
            if fenced:
                yield group
                group = []
            fenced = not fenced
        elif line.strip() or fenced:
            if not fenced and group and _starts_block(line, group):
                yield group
                group = []
            group.append(line)
        elif group:
            yield group
            group = []
    if group:
        yield group


def _starts_block(line: str, group: list[str]) -> bool:
    listed = group[0].startswith("- ")
    return bool(_HEADING.match(line)) or bool(_HEADING.match(group[0])) or (line.startswith("- ") and not listed)


def _block(lines: list[str], embed: Embed, taken: set[str]) -> str:
    first = lines[0]
    if first.startswith("```"):
        return f"<pre><code>{escape(chr(10).join(lines[1:]).removesuffix('```').rstrip())}</code></pre>"
    if match := _HEADING.match(first):
        level = len(match[1])
        return f'<h{level} id="{anchor(match[2], taken)}">{inline(match[2])}</h{level}>'
    if first.startswith("|") and len(lines) > 1 and (table := _table(lines)):
        return table
    if first.startswith("- "):
        return f"<ul>{''.join(f'<li>{inline(item)}</li>' for item in _items(lines))}</ul>"
    text = " ".join(line.strip() for line in lines)
    if (match := _IMAGE.fullmatch(text)) and (address := embed(match["name"])):
        alt = escape(match["alt"], quote=True)
        return f'<p class="picture"><img src="{escape(address, quote=True)}" alt="{alt}"></p>'
    return f"<p>{inline(text)}</p>"


def _items(lines: list[str]) -> list[str]:
    """List items, each with the lines that continue it."""
    items: list[str] = []
    for line in lines:
        if line.startswith("- "):
            items.append(line[2:])
        else:
            items[-1] += " " + line.strip()
    return items


def _table(lines: list[str]) -> str:
    """A table; nothing where the second line is no rule for as many columns as the first has cells."""
    header, rule, *rows = ([cell.strip() for cell in _cells(line)] for line in lines)
    if len(header) != len(rule) or not all(_RULE.fullmatch(cell) for cell in rule):
        return ""
    sides = [' class="number"' if cell.endswith(":") else "" for cell in rule]
    head = "".join(f'<th scope="col"{side}>{inline(cell)}</th>' for cell, side in zip(header, sides, strict=True))
    padded = ([*row, *[""] * len(sides)][: len(sides)] for row in rows)
    body = "".join(
        "<tr>" + "".join(f"<td{side}>{inline(cell)}</td>" for cell, side in zip(row, sides, strict=True)) + "</tr>"
        for row in padded
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(line: str) -> list[str]:
    """The cells of a row; ``\\|`` is a bar inside a cell."""
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]
