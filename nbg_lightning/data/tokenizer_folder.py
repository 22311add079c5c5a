"""The tokenizer of a run as a local folder: given by the user, downloaded, or trained on the sources."""

from __future__ import annotations

from pathlib import Path

from nbg_lightning.data.durable import atomic_folder, content_key, locked
from nbg_lightning.data.progress import say
from nbg_lightning.data.sources import Source, naming
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, checkpoint_tokenizer, train_bpe
from nbg_lightning.quantities import size_text
from nbg_lightning.remote import is_url


def tokenizer_folder(sources: dict[str, Source], config: TokenizerConfig, root: Path, progress: bool) -> Path:
    """A local tokenizer folder: the user's own, or one under `root`, trained or downloaded once."""
    if config.name_or_path is not None:
        tokenizer = Tokenizer(config.name_or_path)
        if tokenizer.folder:
            return tokenizer.folder
        folder = root / f"tokenizer-{tokenizer.fingerprint[:16]}"
        with locked(folder):
            if not folder.is_dir():
                with atomic_folder(folder) as written:
                    tokenizer.save_pretrained(written)
        return folder
    assert config.train_vocab_size is not None
    assert isinstance(config.train_bytes, int)
    identities = []
    for name, source in sources.items():
        with naming(name):
            identities.append(source.identity())
    what = {
        "recipe": "byte-level BPE 1",
        "sources": identities,
        "vocab_size": config.train_vocab_size,
        "bytes": config.train_bytes,
    }
    folder = root / f"tokenizer-{content_key(what)}"
    with locked(folder):
        if not folder.is_dir():
            texts = sample_texts(sources, config.train_bytes)
            size = sum(len(t.encode()) for t in texts)
            if progress:
                say(f"training a tokenizer of {config.train_vocab_size:,} ids on {size_text(size)}")
            train_bpe(texts, config.train_vocab_size, folder)
    return folder


def tokenizer_name(given: TokenizerConfig | str | None, weights: str | None) -> str:
    """The name of an existing tokenizer.

    Args:
        given: folder or hub name of a tokenizer, a checkpoint or folder of a run, which record the tokenizer of their run,
            or settings with one of these.
        weights: the run's base weights, whose tokenizer is the default.

    Raises:
        ValueError: none is given and there are no weights; or one should be trained, but there is no text.
    """
    if isinstance(given, TokenizerConfig):
        if given.name_or_path is None:
            raise ValueError(
                "tokenizer.train_vocab_size is invalid here: a tokenizer is trained on texts, by CurriculumDataModule; give "
                "the run that has trained one, or leave tokenizer out for that of base_weights"
            )
        given = given.name_or_path
    if (name := given or weights) is None:
        raise ValueError(
            "there is no tokenizer; give data.init_args.tokenizer, or base_weights (or ckpt_path) that have one"
        )
    return name


def local_tokenizer(name: str, data_dir: str) -> Path:
    """The folder of a tokenizer, from which every process can load it.

    Args:
        name: as returned by `tokenizer_name`.
        data_dir: folder for downloaded tokenizers.

    Raises:
        ValueError: ``data_dir`` is a URL.
    """
    if is_url(data_dir):
        raise ValueError(
            f"data_dir is invalid: {data_dir!r}; questions are not prepared: give a folder of this machine"
        )
    return tokenizer_folder({}, TokenizerConfig(checkpoint_tokenizer(name)), Path(data_dir), progress=False)


def sample_texts(sources: dict[str, Source], num_bytes: int) -> list[str]:
    """Sample about `num_bytes` of text from all sources in equal shares; small sources leave room to others."""
    sizes = {}
    for name, source in sources.items():
        with naming(name):
            sizes[name] = sum(part.size for part in source.parts())
    shares: dict[str, int] = {}
    for name in sorted(sizes, key=sizes.__getitem__):
        even = (num_bytes - sum(shares.values())) // (len(sizes) - len(shares))
        shares[name] = min(sizes[name], even)
    texts = []
    for name, source in sources.items():
        with naming(name):
            texts += _sample(source, shares[name])
    return texts


def _sample(source: Source, num_bytes: int) -> list[str]:
    """The beginning of every part, `num_bytes` in total."""
    parts = source.parts()
    texts: list[str] = []
    taken = 0
    for index, part in enumerate(parts):
        left = (num_bytes - taken) // (len(parts) - index)
        if left == 0:
            continue
        for text in part.documents():
            data = text.encode("utf-8")
            if len(data) >= left:
                text, data = data[:left].decode("utf-8", "ignore"), data[:left]
            texts.append(text)
            taken += len(data)
            left -= len(data)
            if left == 0:
                break
    return texts
