"""Tokens prepared per second on one core: by `tokenizers` alone, by this library with `tokenizers`, and with fastokens.

python benchmarks/performance/preparation.py [--tokenizer FOLDER] [--packages torch transformers sympy] [--megabytes 8]
    [--many 1000000]

Without a tokenizer, one with 8,192 ids is trained on the sample.

All processor time is measured, including the comparison of the engines for fastokens. The texts are source files of installed
packages; the conversations are short ones made of them. Many conversations are prepared as in a run, by one process per core,
and also measured in wall-clock time.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from paired import write_result

from nbg_lightning.chat.renderer import ChatOptions
from nbg_lightning.chat.template import ChatTemplate
from nbg_lightning.data import preparation, prepare
from nbg_lightning.data.chat_sources import ChatJsonLines
from nbg_lightning.data.conversations import ConversationEncoder
from nbg_lightning.data.shards import MANIFEST
from nbg_lightning.data.sources import JsonLines
from nbg_lightning.data.tokenizer import Tokenizer, one_thread, train_bpe

TRAINED_IDS = 8192


def write_texts(packages: list[str], file: Path) -> list[str]:
    """The source files of packages as JSON lines."""
    texts = []
    for package in packages:
        found = importlib.util.find_spec(package)
        assert found is not None and found.submodule_search_locations, package
        for path in sorted(Path(found.submodule_search_locations[0]).rglob("*.py")):
            texts.append(path.read_bytes().decode("utf-8", "ignore"))
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return texts


def write_conversations(texts: list[str], count: int, file: Path) -> None:
    """Conversations of one or two rounds, of words of the texts."""
    words, drawn = " ".join(texts[:200]).split(), random.Random(0)
    with file.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            turns = []
            for role, most in (("user", 18), ("assistant", 25)) * drawn.choice((1, 1, 1, 2)):
                content = " ".join(drawn.choices(words, k=drawn.randint(5, most)))[:400]
                turns.append({"role": role, "content": content.replace("<think>", "").replace("</think>", "")})
            stream.write(json.dumps({"messages": turns}) + "\n")


def measured(make: Callable[[Path], Path], fast: bool) -> dict[str, float]:
    """Processor seconds of a preparation, with what it made."""
    preparation.FAST_BYTES = 0 if fast else sys.maxsize
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        train = make(Path(folder))
        seconds = time.process_time() - begin
        made = json.loads((train / MANIFEST).read_text("utf-8"))
    return {
        "core_seconds": seconds,
        "tokens": made["tokens"],
        "megabytes": made["bytes"] / 1e6,
        "documents": made["documents"],
        "tokens_per_core_second": made["tokens"] / seconds,
        "core_microseconds_per_document": seconds / made["documents"] * 1e6,
    }


def many(make: Callable[[Path, int], Path], count: int) -> dict[str, float]:
    """The clock and processor seconds of a preparation by one process a core, and the memory of its largest process."""
    processes = len(os.sched_getaffinity(0))
    preparation.FAST_BYTES = 0
    with tempfile.TemporaryDirectory() as folder:
        begin, own, of_children = time.perf_counter(), time.process_time(), children_seconds()
        make(Path(folder), processes)
        seconds = time.perf_counter() - begin
    return {
        "conversations": count,
        "processes": processes,
        "seconds": seconds,
        "core_seconds": time.process_time() - own + children_seconds() - of_children,
        "peak_megabytes_of_a_process": peak_megabytes(resource.RUSAGE_CHILDREN),
    }


def children_seconds() -> float:
    """Processor time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_megabytes(who: int) -> float:
    """The largest resident memory of this process, or of one that it started."""
    return resource.getrusage(who).ru_maxrss / 1024


def tokenizers_alone(tokenizer: Tokenizer, texts: list[str]) -> dict[str, float]:
    """Processor seconds of `tokenizers` for texts in memory, in batches of 32."""
    with one_thread():
        begin = time.process_time()
        tokens = sum(
            sum(map(len, tokenizer.encode_batch(texts[first : first + 32]))) for first in range(0, len(texts), 32)
        )
        seconds = time.process_time() - begin
    return {"core_seconds": seconds, "tokens": tokens, "tokens_per_core_second": tokens / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer")
    parser.add_argument("--packages", nargs="+", default=["torch", "transformers", "sympy"])
    parser.add_argument("--megabytes", type=float, default=8, help="megabytes of the sample for tokenizers")
    parser.add_argument("--conversations", type=int, default=40_000)
    parser.add_argument("--many", type=int, default=1_000_000, help="number of conversations prepared on all cores")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        everything, sample, chats = (Path(work) / name for name in ("all.jsonl", "sample.jsonl", "chats.jsonl"))
        texts = write_texts(given.packages, everything)
        drawn = random.Random(0).sample(texts, len(texts))
        size, some = 0.0, []
        while size < given.megabytes * 1e6:
            some.append(drawn.pop())
            size += len(some[-1])
        sample.write_text("".join(json.dumps({"text": text}) + "\n" for text in some), "utf-8")
        write_conversations(texts, given.conversations, chats)
        tokenizer = Tokenizer(given.tokenizer or train_bpe(some, TRAINED_IDS, Path(work) / "tokenizer"))

        def documents(file: Path) -> Callable[[Path], Path]:
            source = JsonLines(str(file))
            return lambda out: (
                prepare.prepare_source("text", source, tokenizer.name_or_path, out, num_workers=0, progress=False).train
            )

        form, options = ChatTemplate.nanbeige(), ChatOptions(max_length=2048)
        renderer = form.renderer(tokenizer.transformers, options)
        chat_settings = {**form.form, **vars(options)}
        encoder = ConversationEncoder("chat", renderer, tokenizer.vocab_size, tokenizer.fingerprint, chat_settings)

        def conversations(out: Path, processes: int = 0) -> Path:
            source = ChatJsonLines(str(chats))
            settings = prepare.PreparationSettings(out, num_workers=processes, progress=False)
            return prepare.prepare_encoded("chat", source, encoder, settings).train

        begin = time.process_time()
        with one_thread():
            tokenizer.fast_encoder().probe()
        probe = time.process_time() - begin
        results = {
            "comparison_core_seconds": probe,
            "documents": {
                "tokenizers_alone": tokenizers_alone(tokenizer, some),
                "prepared_by_tokenizers": measured(documents(sample), fast=False),
                "prepared_by_fastokens": measured(documents(everything), fast=True),
            },
            "conversations": {
                "prepared_by_tokenizers": measured(conversations, fast=False),
                "prepared_by_fastokens": measured(conversations, fast=True),
            },
            "peak_megabytes_of_all": peak_megabytes(resource.RUSAGE_SELF),
        }
        chats.unlink()
        write_conversations(texts, given.many, chats)
        results["many_conversations"] = many(conversations, given.many)
    rates = {name: found["tokens_per_core_second"] for name, found in results["documents"].items()}
    results["ratio_over_tokenizers_alone"] = {name: rate / rates["tokenizers_alone"] for name, rate in rates.items()}
    write_result("preparation", {**vars(given), "tokenizer": given.tokenizer and Path(given.tokenizer).name}, results)


if __name__ == "__main__":
    main()
