"""The report's markdown as HTML: its forms are kept, and nothing that stands in a run becomes markup."""

from __future__ import annotations

from html import unescape
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from harness.results.table_format import markdown_table
from reports.html.markup import anchor, inline, to_html

ALLOWED = {
    "a", "code", "div", "em", "h1", "h2", "h3", "h4", "img", "li", "p", "pre", "strong", "table", "tbody", "td", "th",
    "thead", "tr", "ul",
}  # fmt: skip


def html(text: str) -> str:
    return to_html(text, lambda name: f"data:{name}", set())


def test_the_forms_of_a_report() -> None:
    assert html("# A `b` **c** *d*") == '<h1 id="a-b-c-d">A <code>b</code> <strong>c</strong> <em>d</em></h1>'
    assert html("one\ntwo\n\nthree") == "<p>one two</p>\n<p>three</p>"
    assert html("Head:\n\n- a **b**\n  goes on\n- c") == (
        "<p>Head:</p>\n<ul><li>a <strong>b</strong> goes on</li><li>c</li></ul>"
    )
    assert html("```\nbench run --a '<b>'\n\n- no list\n```") == (
        "<pre><code>bench run --a &#x27;&lt;b&gt;&#x27;\n\n- no list</code></pre>"
    )
    picture = '<p class="picture"><img src="data:x.png" alt="words"></p>'
    assert html("![words](x.png)") == html("[![words](x.png)](x.svg)") == picture
    assert inline("see [here](https://example.org/a_b), [there](#part) and [x](javascript:alert)") == (
        'see <a href="https://example.org/a_b">here</a>, <a href="#part">there</a> and [x](javascript:alert)'
    )
    assert to_html("![a photo](x.jpg)", lambda name: "", set()) == "<p>![a photo](x.jpg)</p>"
    assert html("text\n- item") == "<p>text</p>\n<ul><li>item</li></ul>"


def test_tables_keep_their_cells_and_sides() -> None:
    table = html(markdown_table(["a", "b"], [["x|y", "1"], ["`m_n*`", "100.0 %†"]]))
    assert '<th scope="col">a</th><th scope="col" class="number">b</th>' in table
    assert '<td>x|y</td><td class="number">1</td>' in table
    assert "<td><code>m_n*</code></td>" in table


def test_what_is_no_table_stays_text() -> None:
    for text in ("||:\n:", "| a | b |\n| --- |", "| a |\n| b |"):
        assert html(text) == f"<p>{text.replace(chr(10), ' ')}</p>"
    assert html("| a | b |\n|---|---|\n| 1 |").count("<td>") == 2


def test_stars_and_backticks_that_are_no_markup_stay() -> None:
    assert inline("2 * 3 * 4 and a*b*c") == "2 * 3 * 4 and a*b*c"
    assert inline("one ` alone") == "one ` alone"
    assert inline("`**not bold**`") == "<code>**not bold**</code>"


def test_anchors_are_unique() -> None:
    taken: set[str] = set()
    assert [anchor(name, taken) for name in ("A b!", "a-b", "A B", "…")] == ["a-b", "a-b-2", "a-b-3", "part"]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(st.sampled_from("<>&\"'`*_|[](){}!#- \nab:/jx\\"), max_size=60))
def test_no_text_becomes_an_element_or_attribute_of_its_own(text: str) -> None:
    parser = _Tags()
    parser.feed(html(text))
    for tag, attributes in parser.seen:
        assert tag in ALLOWED
        assert set(attributes) <= {"id", "class", "href", "src", "alt", "scope"}
        assert (attributes.get("href") or "#").startswith(("http://", "https://", "#"))
        assert (attributes.get("src") or "data:").startswith("data:")


@given(st.text(st.characters(exclude_characters="`*[]\r\n", exclude_categories=("Cs", "Cc")), max_size=40))
def test_plain_words_are_shown_as_they_are(text: str) -> None:
    assert unescape(inline(text)) == text
