"""The bytes of each id of a tokenizer."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from nbg_lightning.data.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # SentencePiece's name of a byte without a token of its own
_BLANK = "\u2581"  # and of a space


def token_bytes(tokenizer: Tokenizer) -> dict[int, bytes]:
    """UTF-8 bytes of every id that stands for text; control tokens and other added tokens are omitted.

    Args:
        tokenizer: byte-level BPE (GPT-2, Llama 3, Qwen, this library's own), or SentencePiece-style BPE or Unigram.

    Raises:
        ValueError: its tokens do not map to bytes, such as WordPiece's.
    """
    rules = json.loads(tokenizer._backend.to_str())
    added = {token["id"] for token in rules["added_tokens"]}
    decoder = json.dumps(rules.get("decoder"), ensure_ascii=False)
    if '"ByteLevel"' in decoder:
        read = _byte_level
    elif '"ByteFallback"' in decoder or '"Metaspace"' in decoder or _BLANK in decoder:
        read = _sentence_piece
    else:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path} is invalid here: the bytes of its tokens are not known (its decoder is "
            f"{_kind(rules.get('decoder'))}); take a model with byte-level BPE or SentencePiece tokens"
        )
    found = {}
    for token, index in tokenizer.vocabulary().items():
        if index not in added:
            found[index] = read(token)
    return found


def control_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Added tokens by name, which text is never tokenized into."""
    rules = json.loads(tokenizer._backend.to_str())
    return {token["content"]: token["id"] for token in rules["added_tokens"]}


@cache
def byte_of_character() -> dict[str, int]:
    """GPT-2's table: one printable character for each byte.

    Example:
        >>> byte_of_character()["\u0120"], byte_of_character()["A"]
        (32, 65)
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _byte_level(token: str) -> bytes:
    table = byte_of_character()
    if all(character in table for character in token):
        return bytes(table[character] for character in token)
    return token.encode()


def _sentence_piece(token: str) -> bytes:
    if match := _BYTE.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace(_BLANK, " ").encode()


def _kind(decoder: Any) -> str:
    return str(decoder.get("type")) if isinstance(decoder, dict) else "missing"
