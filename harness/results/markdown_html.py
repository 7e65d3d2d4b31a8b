"""Convert the markdown of a report to HTML in which no text of a run can become an element of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline, emphasis
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

_WEB = ("http://", "https://", "#")

PictureUrl = Callable[[str], str]
"""Maps the file name of a picture to its URL in the page; empty if the report has no such picture."""


def to_html(text: str, picture_url: PictureUrl, anchors: set[str]) -> str:
    """Convert markdown: headings, paragraphs, lists, tables, code blocks, emphasis, web links and report pictures.

    Everything else, HTML included, is shown as text.

    Args:
        anchors: anchors of the headings so far, to which those of this text are added.
    """
    parser, env = _parser(picture_url), {"picture_url": picture_url}
    tokens = parser.parse(text, env)
    for token, content in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(content.content, anchors))
    return str(parser.renderer.render(tokens, parser.options, env))


def inline(text: str) -> str:
    """Convert one line of markdown without pictures, to be put into an element."""
    no_picture: PictureUrl = lambda name: ""  # noqa: E731
    return str(_parser(no_picture).renderInline(text, {"picture_url": no_picture}))


def anchor(heading: str, anchors: set[str]) -> str:
    """Return an anchor made of the letters and digits of a heading, and add it to ``anchors``; numbered if taken."""
    plain = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "part"
    name, k = plain, 1
    while name in anchors:
        k += 1
        name = f"{plain}-{k}"
    anchors.add(name)
    return name


def _parser(picture_url: PictureUrl) -> MarkdownIt:
    """Return a parser of the few forms that reports use."""
    parser = MarkdownIt("zero", renderer_cls=_Renderer).enable(
        ["heading", "fence", "list", "table", "backticks", "emphasis", "link", "image"]
    )
    parser.inline.ruler.at("emphasis", _star_emphasis)
    # A link or picture with any other target stays text.
    valid: Callable[[str], bool] = lambda url: url.startswith(_WEB) or bool(picture_url(unquote(url)))  # noqa: E731
    parser.validateLink = valid  # type: ignore[assignment, method-assign]
    return parser


def _star_emphasis(state: StateInline, silent: bool) -> bool:
    """Parse emphasis by stars only: underscores are part of names."""
    return state.src[state.pos] == "*" and emphasis.tokenize(state, silent)


class _Renderer(RendererHTML):
    """Embeds pictures, and renders tables without inline styles, which the page's security policy forbids.

    Each method renders the token of its name.
    """

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[idx]
        target = str(token.attrs["src"])
        if url := env["picture_url"](unquote(target)):
            token.attrSet("src", url)
            return super().image(tokens, idx, options, env)
        return escape(f"![{token.content}]({target})")  # on the web: the page fetches nothing

    def link_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        # A picture is linked to its SVG file, which the page does not need.
        return self.renderToken(tokens, idx, options, env) if _leads_to_web(tokens, idx) else ""

    def link_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        opening = max(i for i in range(idx) if tokens[i].type == "link_open")
        return "</a>" if _leads_to_web(tokens, opening) else ""

    def table_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return '<div class="wide"><table>'

    def table_close(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        return "</table></div>\n"

    def th_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        tokens[idx].attrs = {"scope": "col", **tokens[idx].attrs}
        return self.td_open(tokens, idx, options, env)

    def td_open(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[idx]
        if token.attrs.pop("style", "") == "text-align:right":
            token.attrSet("class", "number")
        return self.renderToken(tokens, idx, options, env)


def _leads_to_web(tokens: Sequence[Token], idx: int) -> bool:
    return str(tokens[idx].attrs["href"]).startswith(_WEB)
