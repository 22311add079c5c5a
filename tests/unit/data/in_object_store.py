"""Sources of a corpus in an S3 server of this machine against those of its folder: `python in_object_store.py CORPUS FOLDER`.

FOLDER has a tokenizer. The name of each source is printed when its documents, parts and identity have been compared.
"""

import os
import sys

import fsspec

from nbg_lightning.data import JsonLines, Parquet, TextFolder
from nbg_lightning.data.prepare import prepare_source
from nbg_lightning.data.shards import TokenizedSource

SOURCES = {
    "jsonl": lambda root: JsonLines(f"{root}/jsonl"),
    "pattern": lambda root: JsonLines(f"{root}/jsonl/a*.jsonl"),
    "gz": lambda root: JsonLines(f"{root}/gz/a.jsonl.gz"),
    "parquet": lambda root: Parquet(f"{root}/parquet"),
    "texts": lambda root: TextFolder(f"{root}/texts", exclude=["*/3.txt"]),
}
URL = "s3://corpora/web"


def main(corpus: str, folder: str) -> None:
    """Start the server, compare, and stop it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1")
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    store = fsspec.filesystem("s3")
    store.mkdir("corpora")
    store.put(corpus, "corpora/web", recursive=True)
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
    server.stop()
    os._exit(0)  # what the client's threads hold ends with the process


if __name__ == "__main__":
    main(*sys.argv[1:])
