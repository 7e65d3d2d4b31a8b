"""The report's markdown as HTML: its forms are rendered, and no text of a run becomes an element."""

from __future__ import annotations

from html import unescape
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from harness.results.markdown_html import anchor, inline, to_html
from harness.results.table_format import markdown_table

ALLOWED = {
    "a", "code", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "img", "li", "ol", "p", "pre", "strong", "table",
    "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


def html(text: str) -> str:
    """Return the HTML of a page that has every PNG and SVG picture, without line breaks between elements."""
    converted = to_html(text, lambda name: f"data:{name}" if name.endswith((".png", ".svg")) else "", set())
    return converted.replace(">\n<", "><").rstrip()


def test_forms_that_reports_use() -> None:
    assert html("# A `b` **c** *d*") == '<h1 id="a-b-c-d">A <code>b</code> <strong>c</strong> <em>d</em></h1>'
    assert html("one\ntwo\n\nthree") == "<p>one\ntwo</p><p>three</p>"
    assert html("Head:\n\n- a **b**\n  goes on\n- c") == (
        "<p>Head:</p><ul><li>a <strong>b</strong>\ngoes on</li><li>c</li></ul>"
    )
    assert html("text\n- item") == "<p>text</p><ul><li>item</li></ul>"
    assert html("```\nbench run --a '<b>'\n\n- no list\n```") == (
        "<pre><code>bench run --a '&lt;b&gt;'\n\n- no list\n</code></pre>"
    )
    assert inline("see [here](https://example.org/a_b), [there](#part) and [x](javascript:alert)") == (
        'see <a href="https://example.org/a_b">here</a>, <a href="#part">there</a> and [x](javascript:alert)'
    )


def test_pictures_of_the_report_are_embedded_and_others_stay_text() -> None:
    picture = '<p><img src="data:x.png" alt="words"></p>'
    assert html("![words](x.png)") == html("[![words](x.png)](x.svg)") == picture
    assert html("![words](my%20report.png)") == '<p><img src="data:my report.png" alt="words"></p>'
    assert html("![a photo](x.jpg)") == "<p>![a photo](x.jpg)</p>"
    assert html("![a <b>](https://example.org/x.jpg)") == "<p>![a &lt;b&gt;](https://example.org/x.jpg)</p>"


def test_tables_keep_their_cells_and_alignment() -> None:
    table = html(markdown_table(["a", "b"], [["x|y", "1"], ["`m_n*`", "100.0 %†"]]))
    assert '<th scope="col">a</th><th scope="col" class="number">b</th>' in table
    assert '<td>x|y</td><td class="number">1</td>' in table
    assert "<td><code>m_n*</code></td>" in table
    assert "style" not in table
    assert html("| a | b |\n|---|---|\n| 1 |").count("<td>") == 2


def test_lines_that_are_no_table_stay_text() -> None:
    for text in ("||:\n:", "| a | b |\n| --- |", "| a |\n| b |"):
        assert html(text) == f"<p>{text}</p>"


def test_stars_backticks_and_underscores_that_are_no_markup_stay() -> None:
    assert inline("2 * 3 * 4") == "2 * 3 * 4"
    assert inline("_a_ and __b__") == "_a_ and __b__"
    assert inline("one ` alone") == "one ` alone"
    assert inline("`**not bold**`") == "<code>**not bold**</code>"


def test_anchors_are_unique() -> None:
    anchors: set[str] = set()
    assert [anchor(name, anchors) for name in ("A b!", "a-b", "A B", "…")] == ["a-b", "a-b-2", "a-b-3", "part"]


class _Tags(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


@given(st.text(st.sampled_from("<>&\"'`*_|[](){}!#- \nab:/jx\\.png"), max_size=60))
def test_no_text_becomes_an_element_or_attribute_of_its_own(text: str) -> None:
    parser = _Tags()
    parser.feed(html(text))
    for tag, attributes in parser.elements:
        assert tag in ALLOWED
        assert set(attributes) <= {"id", "class", "href", "src", "alt", "scope", "start", "title"}
        assert (attributes.get("href") or "#").startswith(("http://", "https://", "#"))
        assert (attributes.get("src") or "data:").startswith("data:")


@given(st.text(st.characters(exclude_characters="`*[]\r\n", exclude_categories=("Cs", "Cc")), max_size=40))
def test_plain_words_are_shown_as_they_are(text: str) -> None:
    assert unescape(inline(text)) == text
