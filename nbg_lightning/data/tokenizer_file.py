"""Reading an untrusted ``tokenizer.json``: ids are bounded before the library allocates tables for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

# A number in the file that could be an id beyond any vocabulary; the library would allocate a table of that size.
_LONG_NUMBER = re.compile(r":\s*\d{8,}\s*[,}]")
_LARGEST_ID = 10_000_000
_ADDED_TOKENS = re.compile(r'"added_tokens"\s*:\s*(?=\[)')  # inside a string the quotes would be escaped


def load_backend(file: Path) -> Any:
    """Load the tokenizer of an untrusted ``tokenizer.json``.

    Raises:
        ValueError: it is not one, or has ids beyond any vocabulary, or added tokens that the library would renumber.
    """
    import tokenizers

    try:
        text = file.read_text("utf-8")
        if _LONG_NUMBER.search(text):
            _check_written_ids(json.loads(text), file)
        backend = clean_copy(tokenizers.Tokenizer.from_str(text))
        _check_added_ids(text, backend)
        return backend
    except (
        BaseException
    ) as error:  # the library raises bare Exception, and its Rust code a BaseException when it panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = "nested too deep" if isinstance(error, RecursionError) else " ".join(str(error).split())[:300]
        raise ValueError(f"{file}: not a tokenizer ({reason}); write it again") from None


def _check_written_ids(rules: Any, file: Path) -> None:
    """Refuse ids that would exhaust memory; other malformed files are left to the library's own errors."""
    model, added = (rules.get(key) if isinstance(rules, dict) else None for key in ("model", "added_tokens"))
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    ids |= (
        {t.get("content"): t.get("id") for t in added or () if isinstance(t, dict)} if isinstance(added, list) else {}
    )
    if far := [(token, id) for token, id in ids.items() if isinstance(id, int) and id >= _LARGEST_ID]:
        raise ValueError(
            f"the token {far[0][0]!r:.40} has the id {far[0][1]:,}, beyond any vocabulary; write the tokenizer again"
        )


def _check_added_ids(text: str, backend: Any) -> None:
    """Refuse added tokens whose ids are taken or leave a gap: the library would silently renumber them."""
    if found := _ADDED_TOKENS.search(text):
        added, _ = json.JSONDecoder().raw_decode(text, found.end())
        for token in added:
            if (id := backend.token_to_id(token["content"])) != token["id"]:
                raise ValueError(
                    f"the added token {token['content']!r:.40} has the id {token['id']:,} in the file and {id:,} when it is "
                    "loaded; give each token an id of its own, without gaps"
                )


def check_ids(backend: Any, where: str) -> dict[str, int]:
    """The vocabulary, after checking that its ids are dense.

    Raises:
        ValueError: there are no tokens, or an id is far beyond their number.
    """
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ValueError(f"tokenizer {where!r} is invalid: it has no tokens; write it again")
    token = max(vocabulary, key=vocabulary.__getitem__)
    if vocabulary[token] > 2 * len(vocabulary) + 1024:
        raise ValueError(
            f"tokenizer {where!r} is invalid: the token {token!r:.40} has the id {vocabulary[token]:,}, and there are "
            f"{len(vocabulary):,} tokens; write it again without gaps"
        )
    return vocabulary


def clean_copy(backend: Any) -> Any:
    """A copy that never truncates or pads: some folders keep such settings from fine-tuning."""
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(backend.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend
