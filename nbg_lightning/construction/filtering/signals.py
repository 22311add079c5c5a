"""Cheap deterministic signals of a document, and Gopher's and C4's rules on them.

The rules are those of Rae et al. 2021 (Gopher, arXiv 2112.11446, appendix A.1.1, and table A1 for repetition) and of Raffel
et al. 2020 (C4, arXiv 1910.10683, section 2.2) with their thresholds. They were designed for prose from the web: source
code fails many of them, so a failed rule is only recorded in a column and excludes nothing by itself (see `selection`).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nbg_lightning.construction.filtering.hashing import Words, hash_words, ngrams
from nbg_lightning.construction.step import DocumentRow, DocumentStep

if TYPE_CHECKING:
    import pyarrow

_STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))  # Gopher's
_BULLETS = ("•", "‣", "▶", "◀", "◦", "●", "■", "□", "▪", "▫", "–", "-", "*")
_TERMINAL = (".", "!", "?", '"', "”", "'", ")")  # C4: ends of sentences
_POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_MARKUP = re.compile(r"<[a-zA-Z/!][^<>\n]{0,200}>")
_COMPRESSED_BYTES = 1 << 16  # a prefix only, since compression is slow
_LETTER = re.compile(r"[^\W\d_]")


class FilterRule(NamedTuple):
    """A signal and the range in which a document passes.

    Attributes:
        signal: name of the column.
        low: minimum; None for no limit.
        high: maximum; None for no limit.
    """

    signal: str
    low: float | None
    high: float | None


RULES: dict[str, FilterRule] = {
    "gopher/num_words": FilterRule("num_words", 50, 100_000),
    "gopher/mean_word_length": FilterRule("mean_word_length", 3, 10),
    "gopher/symbols": FilterRule("symbol_to_word_ratio", None, 0.1),
    "gopher/bullets": FilterRule("bullet_lines", None, 0.9),
    "gopher/ellipses": FilterRule("ellipsis_lines", None, 0.3),
    "gopher/alphabetic_words": FilterRule("alphabetic_words", 0.8, None),
    "gopher/stop_words": FilterRule("stop_words", 2, None),
    "repetition/lines": FilterRule("duplicate_lines", None, 0.3),
    "repetition/line_characters": FilterRule("duplicate_line_characters", None, 0.2),
    "repetition/paragraphs": FilterRule("duplicate_paragraphs", None, 0.3),
    "repetition/top_2_grams": FilterRule("top_2_gram_characters", None, 0.2),
    "repetition/top_3_grams": FilterRule("top_3_gram_characters", None, 0.18),
    "repetition/top_4_grams": FilterRule("top_4_gram_characters", None, 0.16),
    "repetition/5_grams": FilterRule("duplicate_5_gram_characters", None, 0.15),
    "repetition/10_grams": FilterRule("duplicate_10_gram_characters", None, 0.1),
    "c4/sentence_lines": FilterRule("sentence_lines", 0.5, None),  # C4 removes the other lines; here, half must be
    "c4/lorem_ipsum": FilterRule("lorem_ipsum", None, 0),
    "c4/javascript": FilterRule("javascript_lines", None, 0.1),
    "c4/policies": FilterRule("policy_mentions", None, 1),
    "c4/braces": FilterRule("brace_characters", None, 0.001),
}

_INTEGERS = ("num_words", "num_lines", "stop_words", "lorem_ipsum", "policy_mentions")
_SHARES = (
    "mean_word_length",
    "symbol_to_word_ratio",
    "bullet_lines",
    "ellipsis_lines",
    "alphabetic_words",
    "sentence_lines",
    "javascript_lines",
    "brace_characters",
    "digit_characters",
    "upper_characters",
    "markup_characters",
    "compression",
    "duplicate_lines",
    "duplicate_line_characters",
    "duplicate_paragraphs",
    "top_2_gram_characters",
    "top_3_gram_characters",
    "top_4_gram_characters",
    "duplicate_5_gram_characters",
    "duplicate_10_gram_characters",
)
_DIGIT = np.array([chr(byte).isdigit() and byte < 0x80 for byte in range(256)])
_UPPER = np.array([0x41 <= byte <= 0x5A for byte in range(256)])


def signals(text: str) -> dict[str, float]:
    """The signals of a text; shares are 0 to 1.

    ``compression`` is compressed by raw size (zlib, of the first 64 KiB): near 0 for repetitive text, near 1 for noise.
    n-gram shares refer to the characters of words: in the most frequent n-gram, or in all n-grams that occurred before.

    Example:
        >>> signals("one two. " * 50)["top_2_gram_characters"] > 0.9
        True
    """
    data = text.encode("utf-8", "surrogatepass")
    words, lines = text.split(), [line for line in map(str.strip, text.splitlines()) if line]
    count, num_lines, characters = max(1, len(words)), max(1, len(lines)), max(1, len(text))
    lowered = text.lower()
    array = np.frombuffer(data, np.uint8)
    found: dict[str, float] = {
        "num_words": len(words),
        "num_lines": len(lines),
        "mean_word_length": sum(map(len, words)) / count,
        "symbol_to_word_ratio": max(text.count("#"), text.count("...") + text.count("…")) / count,
        "bullet_lines": sum(line.startswith(_BULLETS) for line in lines) / num_lines,
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in lines) / num_lines,
        "alphabetic_words": sum(word.isalpha() or _LETTER.search(word) is not None for word in words) / count,
        "stop_words": len(_STOP_WORDS.intersection(lowered.split())),
        "sentence_lines": sum(line.endswith(_TERMINAL) for line in lines) / num_lines,
        "javascript_lines": sum("javascript" in line for line in lowered.splitlines()) / num_lines,
        "lorem_ipsum": lowered.count("lorem ipsum"),
        "policy_mentions": sum(map(lowered.count, _POLICIES)),
        "brace_characters": (text.count("{") + text.count("}")) / characters,
        "digit_characters": float(_DIGIT[array].mean()) if data else 0.0,
        "upper_characters": float(_UPPER[array].mean()) if data else 0.0,
        "markup_characters": sum(map(len, _MARKUP.findall(text))) / characters if "<" in text else 0.0,
        "compression": _compression(data),
        **_duplicates(lines, text),
    }
    hashed = hash_words([data], marks=False)
    for size in (2, 3, 4):
        found[f"top_{size}_gram_characters"] = top_ngram_share(hashed, size)
    for size in (5, 10):
        found[f"duplicate_{size}_gram_characters"] = duplicate_ngram_share(hashed, size)
    return found


def _compression(data: bytes) -> float:
    sample = data[:_COMPRESSED_BYTES]
    return min(1.0, len(zlib.compress(sample, 1)) / len(sample)) if sample else 0.0


def _duplicates(lines: list[str], text: str) -> dict[str, float]:
    seen: set[str] = set()
    number = size = 0
    for line in lines:
        if line in seen:
            number, size = number + 1, size + len(line)
        seen.add(line)
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    return {
        "duplicate_lines": number / max(1, len(lines)),
        "duplicate_line_characters": size / max(1, sum(map(len, lines))),
        "duplicate_paragraphs": (len(paragraphs) - len(set(paragraphs))) / max(1, len(paragraphs)),
    }


def top_ngram_share(words: Words, size: int) -> float:
    """Share of the words' bytes in occurrences of the most frequent n-gram; 0 if none occurs twice."""
    hashes, first = ngrams(words, size)
    if len(hashes) < 2:
        return 0.0
    _, index, counts = np.unique(hashes, return_index=True, return_counts=True)
    if counts.max() < 2:
        return 0.0
    ends = np.concatenate([[0], np.cumsum(words.lengths, dtype=np.int64)])
    sizes = ends[first[index] + size] - ends[first[index]]
    most = counts == counts.max()
    return min(1.0, float((sizes[most] * counts[most]).max() / ends[-1]))


def duplicate_ngram_share(words: Words, size: int) -> float:
    """Share of the words' bytes in n-grams that occurred before; each word counts once."""
    hashes, first = ngrams(words, size)
    if len(hashes) < 2:
        return 0.0
    _, index = np.unique(hashes, return_index=True)
    if len(index) == len(hashes):
        return 0.0
    again = np.ones(len(hashes), bool)
    again[index] = False
    change = np.zeros(len(words.hashes) + 1, np.int64)
    np.add.at(change, first[again], 1)
    np.add.at(change, first[again] + size, -1)
    covered = np.cumsum(change[:-1]) > 0
    return float(words.lengths[covered].sum() / words.lengths.sum())


def failed_rules(found: dict[str, float]) -> list[str]:
    """Names of the rules that a document's signals fail.

    Example:
        >>> "gopher/num_words" in failed_rules(signals("too short"))
        True
    """
    return [
        name
        for name, (signal, low, high) in RULES.items()
        if (low is not None and found[signal] < low) or (high is not None and found[signal] > high)
    ]


class Signals(DocumentStep):
    """Columns: every signal, and ``failed_rules``, the names of the failed rules."""

    @property
    def columns(self) -> dict[str, pyarrow.DataType]:
        import pyarrow

        return {
            **dict.fromkeys(_INTEGERS, pyarrow.int64()),
            **dict.fromkeys(_SHARES, pyarrow.float32()),
            "failed_rules": pyarrow.list_(pyarrow.string()),
        }

    def identity(self) -> dict[str, Any]:
        return {"step": "Signals", "rules": {name: list(rule) for name, rule in RULES.items()}}

    def values(self, texts: Sequence[str]) -> list[DocumentRow]:
        rows: list[DocumentRow] = []
        for text in texts:
            found = signals(text)
            rows.append({**found, "failed_rules": failed_rules(found)})
        return rows
