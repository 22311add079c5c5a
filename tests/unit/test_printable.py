import unicodedata

import pytest

from nbg_lightning.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext ~", "plain\n\ttext ~"),
        ("héllo 数 👨\u200d👩 \u0915\u094d\u200d\u0937", "héllo 数 👨\u200d👩 \u0915\u094d\u200d\u0937"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\bc\x7f\0", "a\\rb\\x08c\\x7f\\x00"),
        ("exe.\u202egnp\u2066x\u2069", "exe.\\u202egnp\\u2066x\\u2069"),
        ("\u2028\u2029\u200b\ufeff", "\\u2028\\u2029\\u200b\\ufeff"),
        ("\ud800", "\\ud800"),
        ("\U000e0041\ue000", "\\U000e0041\\ue000"),
    ],
)
def test_what_acts_without_being_seen_is_written_out(text, shown):
    assert printable(text) == shown


def test_every_control_character():
    controls = "".join(map(chr, range(0x20))) + "".join(map(chr, range(0x7F, 0xA0)))
    shown = printable(controls.replace("\n", "").replace("\t", ""))
    assert shown.isascii() and all(unicodedata.category(character)[0] != "C" for character in shown)
