"""Characters equivalent to an ASCII character or a LaTeX command."""

from __future__ import annotations

import re
import unicodedata


def _table() -> dict[int, str | None]:
    table: dict[int, str | None] = {}
    table.update({0xFF01 + i: chr(0x21 + i) for i in range(94)})  # full-width forms
    table.update({0x1D7CE + i: str(i % 10) for i in range(50)})  # digits of mathematical alphabets
    table.update(dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\ufeff")))
    table.update(dict.fromkeys(map(ord, "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"), " "))
    table.update(dict.fromkeys(map(ord, "\u200a\u202f\u205f\u3000"), " "))
    table.update(dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63"), "-"))  # an em dash is not a minus
    table.update(dict.fromkeys(map(ord, "“”„«»\u2033"), '"'))
    table.update(dict.fromkeys(map(ord, "‘’‚\u2032"), "'"))
    table.update(zip(map(ord, "∶：。，、﹣⁄∕【】"), (":", ":", ". ", ",", ",", "-", "/", "/", "[", "]"), strict=True))
    table.update({ord("٫"): ".", ord("٬"): ",", ord("٪"): "%"})  # of Arabic numerals
    table.update(dict.fromkeys(map(ord, "「」『』"), '"'))
    for circled in (0x24B6, 0x1F150, 0x1F170, 0x1F130):  # letters in circles and squares
        table.update({circled + i: chr(0x41 + i) for i in range(26)})
    commands = {"×": "times", "⋅": "cdot", "·": "cdot", "∙": "cdot", "∗": "cdot", "÷": "div", "±": "pm", "∓": "mp"}
    commands |= {"≤": "le", "⩽": "le", "≥": "ge", "⩾": "ge", "≠": "ne", "≈": "approx", "∞": "infty", "π": "pi"}
    commands |= {"∪": "cup", "∩": "cap", "∈": "in", "√": "sqrt", "∅": "emptyset", "θ": "theta", "α": "alpha"}
    commands |= {
        "∛": "sqrt[3]",
        "∜": "sqrt[4]",
        "β": "beta",
        "φ": "phi",
        "λ": "lambda",
        "ℝ": "R ",
        "→": "to",
        "⇒": "Rightarrow",
        "º": "degree",
        "\u00b5": "mu",
        "\u03bc": "mu",
        "\u03a9": "Omega",
        "\u2126": "Omega",
        "℃": "degree C",
        "℉": "degree F",
    }
    table.update({ord(sign): f"\\{command} " for sign, command in commands.items()})
    table[ord("°")] = "\\degree "
    for signs, mark in (("⁰¹²³⁴⁵⁶⁷⁸⁹", "^"), ("₀₁₂₃₄₅₆₇₈₉", "_")):
        table.update({ord(sign): f"{mark}{{{digit}}}" for digit, sign in enumerate(signs)})
    vulgar = "½1/2 ⅓1/3 ⅔2/3 ¼1/4 ¾3/4 ⅕1/5 ⅖2/5 ⅗3/5 ⅘4/5 ⅙1/6 ⅚5/6 ⅐1/7 ⅛1/8 ⅜3/8 ⅝5/8 ⅞7/8 ⅑1/9 ⅒1/10"
    table.update({ord(each[0]): f" {each[1:]}" for each in vulgar.split()})  # 3½ is 3 1/2
    return table


_TABLE = _table()
_DIGIT = re.compile(r"(?![0-9])\d")  # of other scripts: ٤٢, ४२
_SCRIPTS = re.compile(r"[⁻⁺]?(?:\^\{\d\})++|(?:_\{\d\}){2,}+")  # results of superscript and subscript characters


def plain_characters(text: str) -> str:
    r"""Replace characters by equivalent ASCII characters and LaTeX commands, in linear time.

    Example:
        >>> plain_characters("−3½ × 10¹²"), plain_characters("10⁻³")
        ('-3 1/2 \\times  10^{12}', '10^{-3}')
    """
    if text.isascii():
        return text
    return _SCRIPTS.sub(_joined, _DIGIT.sub(_as_ascii, text.translate(_TABLE)))


def _as_ascii(digit: re.Match[str]) -> str:
    return str(unicodedata.decimal(digit.group()))


def _joined(scripts: re.Match[str]) -> str:
    found = scripts.group()
    sign = "-" if found[0] == "⁻" else ""
    return f"{found.lstrip('⁻⁺')[0]}{{{sign}{''.join(filter(str.isdecimal, found))}}}"
