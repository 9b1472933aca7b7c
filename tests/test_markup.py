"""Text from outside becomes part of a page in one way only."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pixelbert_fast
from pixelbert_fast.visualize.dot_chart import Mark, Panel, dot_chart
from pixelbert_fast.visualize.markup import escaped


def test_what_a_page_may_not_hold_is_replaced() -> None:
    assert escaped("<a href='x'>&\"\x00\x1b\x85\udc80\uffff\n") == (
        "&lt;a href=&#x27;x&#x27;&gt;&amp;&quot;" + 5 * "\ufffd" + "\n"
    )


def test_a_chart_of_any_text_is_xml() -> None:
    said = "a\x01b \x1b[31m <c> \udc80"
    chart = dot_chart([Panel(said, [Mark(said, [0.5])])], title=said)
    tree = ElementTree.fromstring(chart.encode("utf-8"))
    assert "a\ufffdb \ufffd[31m <c> \ufffd" in {element.text for element in tree.iter()}


def test_no_page_escapes_by_itself() -> None:
    package = Path(pixelbert_fast.__file__).parent
    found = [file for file in package.rglob("*.py") if "html.escape" in file.read_text(encoding="utf-8")]
    assert [file.name for file in found] == ["markup.py"]
