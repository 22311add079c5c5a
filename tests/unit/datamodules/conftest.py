import pytest

from nbg_lightning.data import train_bpe


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A tokenizer of 290 ids, for datamodules of conversations and of pairs."""
    texts = ["what is the answer? it is 42, and nothing else than that."] * 3
    return train_bpe(texts, 290, tmp_path_factory.mktemp("tokenizer") / "t")


@pytest.fixture
def in_this_process(tmp_path):
    """Settings of a datamodule that trains on all of its data, and reads it without workers."""
    folder = str(tmp_path / "data")
    return {"data_dir": folder, "validation_fraction": 0.0, "num_workers": 0, "prepare_workers": 0}
