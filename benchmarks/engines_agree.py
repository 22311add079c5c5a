"""Prepares whole corpora with `tokenizers` and with fastokens, and compares all resulting files.

python benchmarks/engines_agree.py --tokenizer NAME=FOLDER ... --texts NAME=FOLDER ... [--suffixes .py .rst]

Each folder of texts is prepared twice for each tokenizer: token ids, order, the split into training and validation, digests and
manifests must be byte-identical. Exits with status 1 if they are not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from performance.paired import write_result

from nbg_lightning.data import preparation, prepare
from nbg_lightning.data.shards import TokenizedSource
from nbg_lightning.data.sources import TextFolder


def prepared(texts: str, suffixes: list[str], tokenizer: str, folder: Path, fast: bool) -> Path:
    """A corpus prepared by one of the engines; returns the folder."""
    preparation.FAST_BYTES = 0 if fast else sys.maxsize
    source = TextFolder(texts, suffixes)
    return prepare.prepare_source("text", source, tokenizer, folder, progress=False).train.parent


def compare(texts: str, suffixes: list[str], tokenizer: str) -> dict[str, object]:
    """Compare the results of both engines for a corpus."""
    with tempfile.TemporaryDirectory() as work:
        fast, judged = (prepared(texts, suffixes, tokenizer, Path(work) / str(fast), fast) for fast in (True, False))
        names = sorted(str(file.relative_to(judged)) for file in judged.glob("*/*") if file.parent.name != "parts")
        different = [name for name in names if (fast / name).read_bytes() != (judged / name).read_bytes()]
        engines = {json.loads(file.read_text())["engine"] for file in (fast / "parts").iterdir()}
        source = TokenizedSource(judged / "train")
        return {
            "documents": source.num_documents,
            "bytes": source.num_bytes,
            "tokens": source.num_tokens,
            "engine": sorted(engines),
            "files": len(names),
            "different_files": different,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--texts", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--suffixes", nargs="+", default=[".py", ".rst", ".txt", ".md"])
    given = parser.parse_args()
    results = {}
    for corpus, texts in (item.split("=", 1) for item in given.texts):
        for name, tokenizer in (item.split("=", 1) for item in given.tokenizer):
            results[f"{corpus}, {name}"] = found = compare(texts, given.suffixes, tokenizer)
            print(corpus, name, found, flush=True)
    write_result("engines_agree", {"suffixes": given.suffixes}, results)
    sys.exit(any(found["different_files"] for found in results.values()))


if __name__ == "__main__":
    main()
