"""Training data behind a URL: samples, order and verification equal those of the folder, also after resuming."""

import os
import random
from types import SimpleNamespace

import pytest
import torch

from nbg_lightning.data import ChatList, DataStore, InMemory, sources, train_bpe
from nbg_lightning.data.share import Share
from nbg_lightning.datamodules import ChatDataModule, CurriculumDataModule, ahead
from nbg_lightning.datamodules.steps import StepSampler
from nbg_lightning.testing.benchmarks import character_tokenizer
from nbg_lightning.testing.lagging_store import lagging_store

BLOCK = 1 << 16
STEPS = 12


@pytest.fixture(scope="module")
def texts():
    chance = random.Random(0)
    return ["".join(chance.choices("abcdefgh .", k=chance.randint(1, 9000))) for _ in range(400)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    character_tokenizer(folder / "tokenizer")
    return folder


@pytest.fixture
def lagging():
    with lagging_store() as store:
        yield store


@pytest.fixture
def make(folder, texts, monkeypatch):
    """A datamodule that is set up; its data are in a folder or behind a URL."""
    for name in ("MIN_PART_BYTES", "MAX_PART_BYTES"):
        monkeypatch.setattr(sources.source, name, 200_000)

    def make(data_dir, **options):
        data = CurriculumDataModule(
            {"web": InMemory(texts)},
            str(folder / "tokenizer"),
            data_dir=data_dir,
            prepare_workers=0,
            sequence_length=512,
            tokens_per_step=8 * 512,
            tokens=STEPS * 8 * 512,
            **options,
        )
        data.prepare_data()
        data.setup("fit")
        return data

    return make


def store_of(folder, name="there"):
    """A cache of a seventh of the data."""
    return DataStore(f"lagging://{folder}/{name}", str(folder / name / "local"), 8 * BLOCK / 1e9, BLOCK / 2**20)


def served(data):
    """Tokens and hashes of each step, and the chain over them."""
    batches = []
    for batch in data.train_dataloader():
        data.advance(int(batch.sample_hash.sum()))
        batches.append(torch.cat([batch.tokens.flatten(), batch.sample_hash]))
    return batches, data.chain


def equal(found, expected):
    return len(found) == len(expected) and all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_samples_are_those_of_the_folder_and_a_resumed_run_goes_on(make, folder, lagging):
    expected, chain = served(make(str(folder / "data")))
    assert len(expected) == STEPS
    for workers in (0, 2):
        found = served(make(store_of(folder), num_workers=workers))
        assert equal(found[0], expected)
        assert found[1] == chain
    half = make(str(folder / "data"))
    for step in range(5):
        half.advance(int(expected[step][-8:].sum()))
    resumed = make(store_of(folder), num_workers=2)
    resumed.load_state_dict(half.state_dict())
    found, again = served(resumed)
    assert equal(found, expected[5:])
    assert again == chain
    assert next(iter(resumed.val_dataloader())).tokens.shape[1] == 512


def test_a_worker_reads_its_next_steps_before_they_are_wanted(make, folder, monkeypatch):
    """The first of two workers of the second of two ranks: every other step of it, a few windows ahead."""
    data = make(str(folder / "data"))
    read = []
    monkeypatch.setattr(ahead, "get_worker_info", lambda: SimpleNamespace(num_workers=2))
    sampler = StepSampler(data.order, 0, 1, 2)
    reader = ahead.ReadAhead(lambda *place: read.append(place) or place, data.order, windows=8)

    def places(*steps):
        return [place for step in steps for place in ahead.places(sampler.samples(step))]

    assert reader.rows(sampler.samples(0)) == places(0)
    reader._pool.shutdown()
    assert sorted(read) == sorted(places(0, 2, 4))
    reader._pool = None
    assert reader.rows(sampler.samples(2)) == places(2)
    reader._pool.shutdown()
    assert sorted(read) == sorted(places(0, 2, 4, 6))
    reader._pool = None
    assert reader.rows(sampler.samples(7)) == places(7)  # a jump: what was begun is let go
    reader._pool.shutdown()
    assert sorted(read) == sorted(places(0, 2, 4, 6, 7, 9, 11))


def test_shares_of_several_machines_are_copied_by_the_last(make, folder, texts, lagging):
    store = store_of(folder, "shared")
    data = CurriculumDataModule(
        {"web": InMemory(texts)}, str(folder / "tokenizer"), data_dir=store, prepare_workers=0, sequence_length=512
    )
    assert data.prepare_share(Share(1, 2)) == ["web"]
    assert not any("web" in path for path, *_ in lagging.requests)
    assert data.prepare_share(Share(2, 2)) == []
    data.setup("fit")
    assert data.fingerprints() == make(str(folder / "data")).fingerprints()


def test_conversations_are_those_of_the_folder(folder, lagging):
    chats = [
        {"messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "a" * i}]}
        for i in range(1, 60)
    ]
    train_bpe([f"a{i}?" for i in range(90)], 268, folder / "bpe")
    found = {}
    for name, place in {"path": str(folder / "chats"), "url": store_of(folder, "chat")}.items():
        data = ChatDataModule(
            {"chats": ChatList(chats)},
            str(folder / "bpe"),
            sequence_length=128,
            tokens_per_step=256,
            data_dir=place,
            prepare_workers=0,
            num_workers=0,
            validation_fraction=0.2,
        )
        data.prepare_data()
        data.setup("fit")
        found[name] = served(data)
    assert equal(found["url"][0], found["path"][0])
    assert found["url"][1] == found["path"][1]
    assert not (folder / "chat" / "chats").exists()
    assert os.listdir(folder / "chat") != []
