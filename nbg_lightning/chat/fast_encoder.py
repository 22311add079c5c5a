"""Encoding with `fastokens`, 10 to 100 times faster than `tokenizers`, and required to give the same ids.

`tokenizers` stays the reference: the two are compared on `probe_texts` before the first text of a source is encoded, and again
on one document in a thousand during preparation (`is_audited`). Texts that fastokens refuses are encoded by the reference, as are
those with U+180E, on which the two are known to differ.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from nbg_lightning.error_line import first_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

AUDITED = 1000  # one document in this many is encoded by both
# fastokens starts threads of its own, while preparation runs in parallel processes.
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "FASTOKENS_BPE_THREADS": "1"}

_DOUBTFUL = "\u180e"  # whitespace to PCRE2, which fastokens uses, but not to `tokenizers`
# Whitespace as in `tokenizers`: the Unicode property, without U+180E, which PCRE's \s includes.
_SPACE = "\t-\r\x85\\p{Z}"
# GPT-2's pattern between isolated digits: blanks before a digit are at the end of their piece.
_GPT2_LONE_DIGITS = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}"
    rf"| ?[^{_SPACE}\p{{L}}\p{{N}}]+|[{_SPACE}]+(?![^{_SPACE}\p{{N}}])|[{_SPACE}]+"
)
_PROBED_TOKENS = 256  # number of added tokens that are probed
_WORD_CHARACTERS = 1_000_000
_DENSE, _STRIDE = 0x3100, 61  # all characters below (scripts, marks, signs, blanks), and one in so many above
_TOGETHER = 16  # characters per probe text: fewer take longer, more hide others behind one that fastokens refuses
_SURROGATES = range(0xD800, 0xE000)
_QUOTED = 40  # characters of a text quoted in a message

SAMPLES = (
    "",
    " ",
    "\n",
    "Two  words, 1234 and Größe\n\tif x: 中文 🙂",
    "Καλημέρα κόσμε, Привет мир, שלום עולם, مرحبا بالعالم ١٢٣, नमस्ते १२३, สวัสดีชาวโลก, こんにちは世界ＡＢＣ１２, 안녕하세요 세계",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ☺️ ☺ 1️⃣ e\u0301 é \u1112\u1161\u11ab 한 Å \u212b ﬁ ½ Ⅷ ² ß ẞ İ ı",
    "Z\u0351\u036b\u0343a\u0321\u0327l\u0334g\u0322o\u0335 \u0301\u0302",
    "a\u0301\u0301\u0301 \u200d\u200c\u200b\ufeff\u2060 \u202eabc\u202c",
    "It's they're I'VE we'll don’t 'S 'tis rock'n'roll ''s 's's \"'d\" l'été",
    "\x00 a\x00b \x01\x02\x1b[0m\x7f\x80\x9f \ufffd \ufffe \uffff \U0010ffff",
    "a\r\nb\rc\n\rd\n\n\n\r\n\r\n e \n f\t\n\tg\x0bh\x0ci\x85j\u2028k\u2029l \r\n \n",
    "<|endoftext|><s></s><unk><pad><|im_start|>user\n<|im_end|> <think>x</think> < s > <S> </s>x<s >",
    "http://a.b/c?d=e&f=%20#g user@example.org C:\\d\\e.txt #!/bin/sh $x=${y:-1} __init__(self, *a, **k): # TODO\n",
    "x=1.25e-10; y=0xFF; 1,234,567.89 12:34:56 2024-01-31 3rd 4x4 a1b22c333d4444 -5 +6 ٣٤ ௧௨ 三 〇",
)


class EnginesDiffer(ValueError):
    """fastokens cannot replace `tokenizers` here: it refuses the rules, or gives other ids."""


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """Ids of several texts, concatenated.

    Attributes:
        ids: uint32 ``[T]``.
        begins: int64 ``[N + 1]``: text i has ``ids[begins[i]:begins[i + 1]]``.
    """

    ids: np.ndarray
    begins: np.ndarray

    @classmethod
    def joined(cls, texts: Sequence[Sequence[int] | np.ndarray]) -> EncodedTexts:
        """Concatenate the ids of each text."""
        begins = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(ids) for ids in texts], out=begins[1:])
        if all(isinstance(ids, list) for ids in texts):
            return cls(np.fromiter(chain.from_iterable(texts), np.uint32, int(begins[-1])), begins)
        pieces = [np.asarray(ids, np.uint32) for ids in texts]
        return cls(np.concatenate(pieces) if pieces else np.empty(0, np.uint32), begins)

    def tolist(self) -> list[list[int]]:
        """The ids of each text."""
        ids = self.ids.tolist()
        return [ids[begin:end] for begin, end in pairwise(self.begins.tolist())]

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[self.begins[index] : self.begins[index + 1]]


def is_installed() -> bool:
    """Whether fastokens is installed; nothing is loaded."""
    return importlib.util.find_spec("fastokens") is not None


def is_audited(content: bytes) -> bool:
    """Whether a document with this content is encoded by both engines: the same one in a thousand in every run."""
    return xxhash.xxh3_64_intdigest(content) % AUDITED == 0


class FastEncoder:
    """fastokens with the rules of a `tokenizers.Tokenizer`, which encodes the texts that fastokens refuses.

    Args:
        judge: the reference tokenizer, with its ``encode_special_tokens`` set.

    Raises:
        EnginesDiffer: fastokens is not installed, or cannot read the rules.
    """

    def __init__(self, judge: Tokenizer) -> None:
        if not is_installed():
            raise EnginesDiffer("fastokens is not installed")
        import fastokens

        self._judge = judge
        self._plain = bool(judge.encode_special_tokens)
        try:
            self._engine = fastokens.Tokenizer.from_json_str(fast_rules(judge.to_str()))
        except BaseException as error:
            raise EnginesDiffer(f"fastokens cannot read the tokenizer ({_reason(error)})") from None

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """Encode texts, adding nothing."""
        try:
            return self._flat(texts)
        except BaseException as error:
            _reason(error)
        if len(texts) <= 1:
            return judge_ids(self._judge, texts)
        middle = len(texts) // 2  # bisect to find the text that is refused
        first, second = self.encode(texts[:middle]), self.encode(texts[middle:])
        begins = np.concatenate((first.begins, second.begins[1:] + first.begins[-1]))
        return EncodedTexts(np.concatenate((first.ids, second.ids)), begins)

    def check(self, text: str, ids: np.ndarray) -> None:
        """Compare the ids of a text with the reference.

        Raises:
            EnginesDiffer: they differ.
        """
        if not np.array_equal(judge_ids(self._judge, [text]).ids, ids):
            raise EnginesDiffer(f"fastokens gives other ids than tokenizers for {text[:_QUOTED]!r}")

    def _flat(self, texts: Sequence[str]) -> EncodedTexts:
        if _DOUBTFUL in "".join(texts):
            raise ValueError("a character that only the judge reads")
        ids, begins = self._engine.encode_batch_flat(list(texts), split_special_tokens=self._plain)
        return EncodedTexts(np.frombuffer(ids, "<u4"), np.frombuffer(begins, "<u8").astype(np.int64))

    def probe(self) -> None:
        """Compare the two engines on `probe_texts`.

        Raises:
            EnginesDiffer: they differ on one of them, or fastokens accepts invalid text.
        """
        texts = probe_texts(self._judge)
        expected, found = judge_ids(self._judge, texts), self.encode(texts)
        for index, text in enumerate(texts):
            if not np.array_equal(expected[index], found[index]):
                raise EnginesDiffer(f"fastokens gives other ids than tokenizers for {_first_difference(self, text)!r}")
        try:
            self._flat(["\ud800"])
        except BaseException as error:
            _reason(error)
        else:
            raise EnginesDiffer("fastokens encodes half of a surrogate pair, which UTF-8 cannot hold")

    @cached_property
    def token_bytes(self) -> np.ndarray | None:
        """UTF-8 bytes of the text of each id, int64 ``[vocab_size]``; None if the tokens do not map to bytes."""
        rules = json.loads(self._judge.to_str())
        if rules["normalizer"] is not None or '"ByteLevel"' not in json.dumps(rules["pre_tokenizer"]):
            return None
        vocabulary = self._judge.get_vocab(with_added_tokens=True)
        lengths = np.full(max(vocabulary.values()) + 1, -1, np.int64)
        for token, index in vocabulary.items():
            lengths[index] = len(token)  # one character per byte
        for token in rules["added_tokens"]:
            lengths[token["id"]] = len(token["content"].encode("utf-8", "surrogatepass"))
        return lengths


def judge_ids(judge: Tokenizer, texts: Sequence[str]) -> EncodedTexts:
    """Encode texts with `tokenizers`."""
    return EncodedTexts.joined([item.ids for item in judge.encode_batch_fast(list(texts), add_special_tokens=False)])


def fast_rules(rules: str) -> str:
    """A tokenizer's JSON without parts unused in encoding, and with isolated digits and GPT-2's splits merged into one pattern.

    fastokens takes four times as long for the two patterns in sequence.
    """
    state = json.loads(rules)
    state["truncation"] = state["padding"] = state["post_processor"] = None
    steps = (state.get("pre_tokenizer") or {}).get("pretokenizers") or []
    if [step.get("type") for step in steps] == ["Digits", "ByteLevel"]:
        digits, byte_level = steps
        if digits["individual_digits"] and byte_level["use_regex"] and not byte_level["add_prefix_space"]:
            split = {
                "type": "Split",
                "pattern": {"Regex": _GPT2_LONE_DIGITS},
                "behavior": "Isolated",
                "invert": False,
            }
            state["pre_tokenizer"]["pretokenizers"] = [split, {**byte_level, "use_regex": False}]
    return json.dumps(state, ensure_ascii=False)


def probe_texts(judge: Tokenizer) -> list[str]:
    """Texts on which two engines are likely to differ.

    Scripts and emoji, combining marks, runs of blanks and digits, all kinds of newlines, NUL, every character below U+3100 and
    some of every block above, added tokens inside of text, rare tokens of the vocabulary, and 1 MB without a blank.
    """
    texts = list(SAMPLES)
    for sign in " \t\n\r\u00a0\u180e\u3000\u20280９½-=.!aé中🙂\u0301":
        texts += [
            f"{before}{sign * count}{after}"
            for count in (2, 3, 17, 300)
            for before in ("", "a")
            for after in ("", "b", "1")
        ]
    codes = [*range(_DENSE), *range(_DENSE, 0x110000, _STRIDE)]
    signs = [chr(code) for code in codes if code not in _SURROGATES]
    pieces = [f"a{sign} {sign}b  {sign * 2}1{sign}\n" for sign in signs]
    texts += ["".join(pieces[begin : begin + _TOGETHER]) for begin in range(0, len(pieces), _TOGETHER)]
    added = sorted(judge.get_added_tokens_decoder().items())[:_PROBED_TOKENS]
    for _, token in added:
        name = token.content
        texts += [
            f"x{name}y",
            f" {name} {name}{name}1",
            f"{name[:-1]} {name[1:]}\n{name.upper()}",
            f"\n{name}\n\n{name}  ",
        ]
    size = judge.get_vocab_size(with_added_tokens=True)
    step = next(number for number in (7919, 7907, 7901) if size % number)
    for begin in range(0, size, 512):
        ids = [place * step % size for place in range(begin, min(begin + 512, size))]
        texts.append(judge.decode(ids, skip_special_tokens=False))
    letters = np.random.Generator(np.random.PCG64(0)).integers(ord("a"), ord("z") + 1, _WORD_CHARACTERS, np.uint8)
    return [*texts, letters.tobytes().decode("ascii")]


def _first_difference(encoder: FastEncoder, text: str) -> str:
    """A short part of a text on which the two engines differ, for a message."""
    while len(text) > _QUOTED:
        half = len(text) // 2
        halves = (text[:half], text[half:])
        found = next((part for part in halves if _differs(encoder, part)), None)
        if found is None:
            break
        text = found
    return text[:_QUOTED]


def _differs(encoder: FastEncoder, text: str) -> bool:
    try:
        encoder.check(text, encoder.encode([text]).ids)
    except EnginesDiffer:
        return True
    return False


def _reason(error: BaseException) -> str:
    """An engine's error for a text. A Rust panic is not an `Exception`; exceptions that end the program propagate.

    Raises:
        BaseException: the error itself, if it ends the program.
    """
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError)):
        raise error
    return first_line(error)
