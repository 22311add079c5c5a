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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from paired import resident_bytes, write_result

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


def conversations(tokenizer: Tokenizer, file: Path) -> Callable[..., Path]:
    """What prepares a file of conversations in a folder, with a number of processes (0: in this one)."""
    form = ChatTemplate.nanbeige()
    options = ChatOptions(max_length=2048)
    renderer = form.renderer(tokenizer.transformers, options)
    settings = {**form.form, **vars(options)}
    encoder = ConversationEncoder("chat", renderer, tokenizer.vocab_size, tokenizer.fingerprint, settings)

    def make(out: Path, processes: int = 0) -> Path:
        source = ChatJsonLines(str(file))
        settings = prepare.PreparationSettings(out, num_workers=processes, progress=False)
        return prepare.prepare_encoded("chat", source, encoder, settings).train

    return make


def prepare_many(tokenizer: str, file: Path) -> dict[str, float]:
    """The clock and processor seconds of a preparation by one process per core, and the memory of its largest process.

    In a fresh process: a child process has at least the peak of its parent at its start.
    """
    processes = len(os.sched_getaffinity(0))
    preparation.FAST_BYTES = 0
    make = conversations(Tokenizer(tokenizer), file)
    with tempfile.TemporaryDirectory() as folder:
        begin, core_seconds = time.perf_counter(), used_core_seconds()
        make(Path(folder), processes)
        seconds = time.perf_counter() - begin
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "processes": processes,
        "seconds": seconds,
        "core_seconds": used_core_seconds() - core_seconds,
        "peak_megabytes_of_a_process": max(of_children, resident_bytes() / 2**20),
    }


def used_core_seconds() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + used.ru_utime + used.ru_stime


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
    parser.add_argument("--many-of", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.many_of:
        print(json.dumps(prepare_many(given.many_of[0], Path(given.many_of[1]))))
        return
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
                "prepared_by_tokenizers": measured(conversations(tokenizer, chats), fast=False),
                "prepared_by_fastokens": measured(conversations(tokenizer, chats), fast=True),
            },
            "peak_megabytes_of_all": resident_bytes() / 2**20,
        }
        chats.unlink()
        write_conversations(texts, given.many, chats)
        command = [sys.executable, __file__, "--many-of", tokenizer.name_or_path, str(chats)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        results["many_conversations"] = {"conversations": given.many, **json.loads(answer)}
    rates = {name: found["tokens_per_core_second"] for name, found in results["documents"].items()}
    results["ratio_over_tokenizers_alone"] = {name: rate / rates["tokenizers_alone"] for name, rate in rates.items()}
    settings = {name: value for name, value in vars(given).items() if name != "many_of"}
    write_result("preparation", {**settings, "tokenizer": given.tokenizer and Path(given.tokenizer).name}, results)


if __name__ == "__main__":
    main()
