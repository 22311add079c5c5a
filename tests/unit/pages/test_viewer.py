"""The page: untrusted text is shown as text, nothing is fetched, and truncated texts say so."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from nbg_lightning.pages import viewer
from nbg_lightning.pages.document import document, shortened, text
from nbg_lightning.pages.records import Bar, ShownAnswer, ShownPiece, ShownRecord, ShownRecords, ShownTurn, plain
from nbg_lightning.pages.viewer import viewer_page

HOSTILE = [
    "<script>alert(1)</script>", "</pre></article></main>", "' onmouseover='x", '" data-x="', "\x1b[31m\x07", "\u202egnp",
    "\ud83d", "&lt;b&gt;", "]]>", "<!--", "</style>", "\0", "javascript:alert(1)",
]  # fmt: skip
VOID = {"meta", "input", "br", "img"}


class Tags(HTMLParser):
    """Tags in order, attributes, and what is left open."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def everywhere(value):
    """A record with one text in every place."""
    turn = ShownTurn(value, (ShownPiece(value, 1.0), ShownPiece(value, 0.5), ShownPiece(value, 0.0), ShownPiece(value)))
    answer = ShownAnswer(value, (turn,), 0.5, ((value, value),))
    return ShownRecord(value, value, value, (turn,), (answer,), value, ((value, value),))


@pytest.mark.parametrize("value", HOSTILE)
def test_every_place_is_escaped(value):
    bars = (value, [Bar(value, 0.5, value)])
    collection = ShownRecords(
        value, value, [everywhere(value), everywhere("plain")], 2, [value], ((value, value),), bars
    )
    chart = ("plain", [Bar("plain", 0.5, "plain")])
    clean = ShownRecords("plain", "plain", [everywhere("plain")] * 2, 2, ["plain"], (("plain", "plain"),), chart)
    page = viewer_page(value, [collection], [collection], (value, value))
    found, usual = Tags(page), Tags(viewer_page("plain", [clean], [clean], ("plain", "plain")))
    assert not found.open
    assert found.tags.count("script") == 1 == usual.tags.count("script")
    assert set(found.tags) == set(usual.tags)
    assert {(tag, name) for tag, name, _ in found.attributes} == {(tag, name) for tag, name, _ in usual.attributes}
    assert not set(page) & set("\x1b\x07\u202e\0\ud83d")
    page.encode()


def test_nothing_is_fetched_and_only_our_script_runs():
    page = viewer_page("t", [ShownRecords("c", "rows", [everywhere("x")], 1)])
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert "http://" not in page and "https://" not in page and "src=" not in page.replace("-src ", "")
    assert not [name for _, name, _ in Tags(page).attributes if name.startswith("on") or name == "style"]
    assert "script-src 'none'" in document("no script", "")


def test_long_texts_are_cut_with_a_count_and_keep_their_marks():
    turn = ShownTurn("", (ShownPiece("a" * 50, 0.0), ShownPiece("b" * 50, 1.0), ShownPiece("c" * 50, 0.5)))
    page = viewer_page("t", [ShownRecords("c", "rows", [ShownRecord("k", "r", "", (turn,))], 1)], max_characters=60)
    (shown,) = re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.S)
    assert shown == (
        "a" * 30 + "\n<i class=quiet>[… 90 of 150 characters left out …]</i>\n"
        f"<mark class=weighted title='weight 0.5'>{'c' * 30}</mark>"
    )
    assert "<mark>covered by the loss</mark>" in page and "a weight other than 1" in page
    assert shortened("x" * 10, 10) == "x" * 10
    assert shortened("x" * 13, 5) == "xxx\n[… 8 characters left out …]\nxx"


@pytest.mark.parametrize("limit", [1, 2, 7, 8, 9, 20])
def test_a_cut_text_has_as_many_characters_as_are_allowed(limit):
    pieces = [ShownPiece("abc", 1.0), ShownPiece("de", 0.0), ShownPiece("", 1.0), ShownPiece("fghi", 1.0)]
    shown = "".join(viewer._cut(pieces, limit))
    kept = re.sub(r"\n<i.*?</i>\n|</?mark>", "", shown, flags=re.S)
    whole = "abcdefghi"
    assert kept == (whole if limit >= 9 else whole[: limit - limit // 2] + whole[9 - limit // 2 :])


def test_very_many_texts_are_cut_shorter(monkeypatch):
    monkeypatch.setattr(viewer, "PAGE_CHARACTERS", 10_000)
    records = [ShownRecord(str(n), "r", "", (plain("", "x" * 5000),)) for n in range(20)]
    page = viewer_page("t", [ShownRecords("c", "rows", records, 20)])
    assert page.count("4,500 of 5,000 characters left out") == 20


def test_what_is_not_there_has_no_control():
    rows = [ShownRecord("a", "r", "", (plain("", "x"),))]
    page = viewer_page("t", [ShownRecords("file", "rows", rows, 900)])
    assert "file: 900 rows, of which 1 are here, evenly spread (--limit shows more)" in page
    assert "id=group" not in page and "id=outcome" not in page and "id=change" not in page and "lowest" not in page
    assert "covered by the loss" not in page


def test_two_runs_have_their_question_once():
    def run(score):
        answer = ShownAnswer("answer 0", (plain("", f"says {score}"),), score)
        return [
            ShownRecords(
                "c", "items", [ShownRecord("k", "item", "", (plain("user", "one question"),), (answer,), "7")], 1
            )
        ]

    page = viewer_page("t", run(0.0), run(1.0), ("before", "after"))
    assert page.count("one question") == 1 and page.count("gold <b>7</b>") == 1
    assert "<span class=better>0 &rarr; 1</span>" in page and 'data-change="better"' in page
    assert page.index("says 0.0") < page.index("says 1.0")
    assert text("<") == "&lt;"
