"""Sources of a corpus in an S3 server of this machine against those of its folder: `python in_object_store.py CORPUS FOLDER`.

FOLDER has a tokenizer. The name of each source is printed when its documents, parts and identity have been compared, and
"prepared", "trained" when what is prepared and served has been.
"""

import os
import random
import sys

import fsspec
import torch

from nbg_lightning.data import DataStore, InMemory, JsonLines, Parquet, TextFolder
from nbg_lightning.data.prepare import prepare_source
from nbg_lightning.data.shards import TokenizedSource
from nbg_lightning.datamodules import CurriculumDataModule
from nbg_lightning.testing import s3_server

SOURCES = {
    "jsonl": lambda root: JsonLines(f"{root}/jsonl"),
    "pattern": lambda root: JsonLines(f"{root}/jsonl/a*.jsonl"),
    "gz": lambda root: JsonLines(f"{root}/gz/a.jsonl.gz"),
    "parquet": lambda root: Parquet(f"{root}/parquet"),
    "texts": lambda root: TextFolder(f"{root}/texts", exclude=["*/3.txt"]),
}
URL = "s3://corpora/web"
NUM_DOCUMENTS, LENGTH, BLOCK_BYTES = 290, 8192, 1 << 16


def compare_training(folder: str) -> None:
    """A run on prepared data in the store reads every sample as one on the folder, through a cache of a tenth of the data."""
    chance = random.Random(0)
    texts = ["".join(chance.choices("abcdefgh .", k=chance.randint(1, 10_000))) for _ in range(NUM_DOCUMENTS)]
    cache_bytes = 4 * BLOCK_BYTES
    store = DataStore("s3://corpora/prepared", f"{folder}/data", cache_bytes / 1e9, BLOCK_BYTES / 2**20)
    found = []
    for place, workers in {f"{folder}/data": 0, store: 2}.items():
        data = CurriculumDataModule(
            {"web": InMemory(texts)},
            f"{folder}/tokenizer",
            data_dir=place,
            prepare_workers=0,
            num_workers=workers,
            sequence_length=LENGTH,
            tokens_per_step=4 * LENGTH,
        )
        data.prepare_data()
        data.setup("fit")
        assert sum(data.source_tokens.values()) * 2 > 10 * cache_bytes
        batches = []
        for batch in data.train_dataloader():
            data.advance(int(batch.sample_hash.sum()))
            batches.append(batch.tokens)
        found.append((batches, data.chain))
    (here, chain), (there, other) = found
    assert len(here) == len(there) > 35
    assert chain == other
    assert all(torch.equal(*pair) for pair in zip(here, there, strict=True))
    assert sum(file.stat().st_size for file in store.cache_folder.glob("*/*")) <= cache_bytes


def main(corpus: str, folder: str) -> None:
    """Start the server, compare, and stop it."""
    with s3_server("corpora"):
        fsspec.filesystem("s3").put(corpus, "corpora/web", recursive=True)
        for name, make in SOURCES.items():
            there, here = make(URL), make(corpus)
            assert list(there.documents()) == list(here.documents()), name
            assert [part.size for part in there.parts()] == [part.size for part in here.parts()], name
            assert there.identity() == make(URL).identity(), name
            print(name)
        found = set()
        for name, root in {"url": URL, "path": corpus}.items():
            source, out = JsonLines(f"{root}/jsonl"), f"{folder}/{name}"
            folders = prepare_source("text", source, f"{folder}/tokenizer", out, num_workers=0, progress=False)
            found.add(TokenizedSource(folders.train).fingerprint)
        assert len(found) == 1
        print("prepared", flush=True)
        compare_training(folder)
        print("trained", flush=True)
    os._exit(0)  # what the client's threads hold ends with the process


if __name__ == "__main__":
    main(*sys.argv[1:])
