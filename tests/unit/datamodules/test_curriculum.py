"""Text in the order of a curriculum, and validation that counts every held-out token once."""

import json
import logging
import multiprocessing
import random
import subprocess

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from nbg_lightning import stopping
from nbg_lightning.core.batch import IGNORE
from nbg_lightning.data.sources import JsonLines
from nbg_lightning.data.tokenizer import Tokenizer, TokenizerConfig, train_bpe
from nbg_lightning.datamodules.curriculum import CurriculumDataModule, ValidationRows
from nbg_lightning.schedule.curriculum import Curriculum, Stage
from nbg_lightning.strategy import FSDP2Strategy

LENGTH = 32
COUNTS = {"prose": 120, "code": 60, "tiny": 2}


def documents(name):
    chance = random.Random(name)
    return [
        f"{name} {i} " + " ".join(chance.choices(["één", "zwei", "three"], k=chance.randint(0, 40)))
        for i in range(COUNTS[name])
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("curriculum")


@pytest.fixture(scope="module")
def sources(folder):
    for name in COUNTS:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents(name)))
    return {name: JsonLines(path=str(folder / f"{name}.jsonl")) for name in COUNTS}


@pytest.fixture(scope="module")
def tokenizer(folder):
    return train_bpe(documents("prose"), 280, folder / "tokenizer")


@pytest.fixture
def make(folder, sources, tokenizer):
    """A datamodule, prepared and set up."""

    def make(**options):
        options = {
            "validation_fraction": 0.3,
            "prepare_workers": 0,
            "num_workers": 0,
            "data_dir": str(folder / "data"),
            **options,
        }
        data = CurriculumDataModule(options.pop("sources", sources), TokenizerConfig(str(tokenizer)), **options)
        data.prepare_data()
        data.setup("fit")
        return data

    return make


@pytest.fixture
def data(make):
    return make(validation_tokens=1_000_000)


def curriculum(stages=None, tokens_per_step=8 * LENGTH):
    stages = stages or [Stage("only", 16 * tokens_per_step, 1e-3, {"prose": 2, "code": 1})]
    return Curriculum(stages, tokens_per_step, LENGTH)


def held_out(data, name):
    """The texts of a source that are not in training."""
    train = data._train[name]
    ids = train.span(0, train.num_tokens)[0]
    text = data.tokenizer.decode(ids, skip_special_tokens=False)
    trained = {part.removeprefix("<s>") for part in text.split("</s>") if part}
    return [text for text in documents(name) if text not in trained]


# -- training -----------------------------------------------------------------------------------------------------------


def test_a_step_is_the_windows_of_the_order(data):
    data.use_curriculum(curriculum())
    batch = next(iter(data.train_dataloader()))
    assert batch.tokens.shape == batch.labels.shape == batch.positions.shape == (8, LENGTH)
    samples = data.order.lookup(0, 8)
    for row in range(8):
        name = data.curriculum.sources[samples.source[row]]
        begin = int(samples.window[row]) * LENGTH
        tokens, starts = data._train[name].span(begin, begin + LENGTH + 1)
        assert batch.tokens[row].tolist() == tokens[:-1].tolist()
        trained = batch.labels[row] != IGNORE
        assert batch.labels[row][trained].tolist() == tokens[1:][trained.numpy()].tolist()
        assert (~trained).nonzero().flatten().tolist() == [start - 1 for start in starts if start > 0]
    assert len(list(data.train_dataloader())) == data.curriculum.num_steps


def test_workers_change_nothing(data, make):
    data.use_curriculum(curriculum())
    others = make(num_workers=2)
    others.use_curriculum(curriculum())
    for one, two in zip(data.train_dataloader(), others.train_dataloader(), strict=True):
        assert torch.equal(one.tokens, two.tokens)
        assert torch.equal(one.sample_hash, two.sample_hash)


def test_workers_leave_signals_to_the_parent(make):
    """Terminals and schedulers send them to all: a worker that ended by one would take the step under way with it."""
    data = make(num_workers=2)
    data.use_curriculum(curriculum())
    loader = iter(FSDP2Strategy().process_dataloader(data.train_dataloader()))
    next(loader), next(loader)  # one of each worker: both have begun
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for number in stopping.STOP_SIGNALS:  # from another process than their parent
        subprocess.run(["kill", f"-{int(number)}", *(str(worker.pid) for worker in workers)], check=True)
    assert len(list(loader)) == data.curriculum.num_steps - 2


def test_split_documents_are_counted(data, caplog):
    longer = {name: data._train[name].num_longer_than(LENGTH) for name in ("prose", "code")}
    by_hand = sum(
        len(data.tokenizer.encode(text)) + 2 > LENGTH
        for text in documents("prose")
        if text not in held_out(data, "prose")
    )
    assert longer["prose"] == by_hand > 0
    with caplog.at_level(logging.INFO, "nbg_lightning"):
        data.use_curriculum(curriculum())
    assert (
        f"documents longer than {LENGTH} tokens, split over windows: prose {by_hand}, code {longer['code']}"
        in caplog.text
    )


def test_sources_of_weight_zero_are_not_read(data):
    stages = [Stage("only", 64 * LENGTH, 1e-3, {"prose": 1, "code": 0})]
    data.use_curriculum(curriculum(stages))
    assert {int(source) for batch in data.train_dataloader() for source in batch.source} == {0}


def test_unknown_source_is_named(data):
    with pytest.raises(ValueError, match="unknown sources books; there are prose, code, tiny"):
        data.use_curriculum(curriculum([Stage("only", 1024, 1e-3, {"books": 1})]))


def test_source_without_a_window_is_named(make, folder, tmp_path):
    (tmp_path / "short.jsonl").write_text(json.dumps({"text": "a b"}) + "\n")
    data = make(sources={"short": JsonLines(path=str(tmp_path / "short.jsonl"))}, data_dir=str(tmp_path / "data"))
    with pytest.raises(ValueError, match="short") as caught:
        data.use_curriculum(curriculum([Stage("only", 1024, 1e-3, {"short": 1})]))
    assert "\n" not in str(caught.value)


def test_no_sources():
    with pytest.raises(ValueError, match="needs at least one source"):
        CurriculumDataModule({}, TokenizerConfig(train_vocab_size=300))


def test_vocabulary_and_sizes(data, tokenizer):
    assert data.vocab_size == Tokenizer(tokenizer).vocab_size == 280
    total = {name: sum(len(data.tokenizer.encode(text)) + 2 for text in documents(name)) for name in COUNTS}
    for name in COUNTS:
        assert data.source_tokens[name] + data._validation[name].num_tokens == total[name]


# -- validation ---------------------------------------------------------------------------------------------------------


def batches(data):
    data.use_curriculum(curriculum())
    return list(data.val_dataloader())


def trained_of(batches, source):
    """All labels that count, of one source."""
    labels = [batch.labels[batch.source == source].flatten() for batch in batches]
    return sorted(label for label in torch.cat(labels).tolist() if label != IGNORE)


def test_every_held_out_token_is_predicted_once(data):
    found = batches(data)
    assert all(batch.tokens.shape == (16, LENGTH) for batch in found)
    for index, (name, source) in enumerate(data._validation.items()):
        tokens, starts = source.span(0, source.num_tokens)
        expected = np.delete(tokens, starts)  # nothing predicts how a document begins
        assert len(expected) == source.num_tokens - source.num_documents
        assert trained_of(found, index) == sorted(expected.tolist())
        assert source.num_documents == len(held_out(data, name)) > 0


def test_rows_that_fill_up_are_ignored(data):
    rows = sum(-(-(source.num_tokens - 1) // LENGTH) for source in data._validation.values())
    found = batches(data)
    filled = sum(int((batch.labels != IGNORE).any(dim=1).sum()) for batch in found)
    assert filled == rows
    assert sum(len(batch) for batch in found) == -(-rows // 16) * 16


@pytest.mark.parametrize("num_ranks", [2, 3, 8])
def test_ranks_share_the_same_rows(data, num_ranks):
    """Each has as many batches as the others, and together they have what one rank has."""
    rows = max(1, 16 // num_ranks)
    ranks = [ValidationRows(data._validation, LENGTH, 10**6, rank, num_ranks, rows) for rank in range(num_ranks)]
    assert len({len(rank) for rank in ranks}) == 1
    found = [rank[index] for rank in ranks for index in range(len(rank))]
    for source in range(len(COUNTS)):
        assert trained_of(found, source) == trained_of(batches(data), source)


def test_limited_validation_is_spread_over_the_split(make):
    data = make(validation_tokens=4 * LENGTH)
    data.use_curriculum(curriculum())
    rows = ValidationRows(data._validation, LENGTH, data.validation_tokens, 0, 1, 1)
    begins = [begin for source, begin in filter(None, rows.picked) if source == 0]
    last = data._validation["prose"].num_tokens - LENGTH
    assert len(begins) == 4
    assert begins[0] == 0
    assert begins[-1] > last / 2
    assert all(begin % LENGTH == 0 for begin in begins)


def test_a_split_smaller_than_a_window_is_validated(data):
    source = data._validation["tiny"]
    index = list(data._validation).index("tiny")
    tokens, _ = source.span(0, source.num_tokens)
    found = batches(data)
    (batch,) = [batch for batch in found if (batch.source == index).any()]
    row = int((batch.source == index).nonzero()[0])
    count = min(LENGTH, len(tokens))
    assert batch.tokens[row, :count].tolist() == tokens[:count].tolist()
    assert batch.labels[row, source.num_tokens - 1 :].tolist() == [IGNORE] * max(0, LENGTH - source.num_tokens + 1)


def test_padding_is_no_part_of_a_document(data):
    padded = 0
    for batch in batches(data):
        for labels, positions in zip(batch.labels, batch.positions, strict=True):
            trained = (labels != IGNORE).nonzero().flatten()
            end = int(trained[-1]) + 1 if len(trained) else 0
            padded += end + 1 < len(positions)
            after = positions[end + 1 :]  # the last token of the text has no label, but a position
            assert len(after) == 0 or 0 in after[:1].tolist() or 0 in positions[end : end + 1].tolist()
    assert padded


def test_bytes_per_token_by_hand(data):
    for name in COUNTS:
        texts = held_out(data, name)
        num_bytes = sum(len(text.encode()) for text in texts)
        predicted = sum(len(data.tokenizer.encode(text)) + 1 for text in texts)  # the end too, not the beginning
        assert data.bytes_per_token[name] == num_bytes / predicted


def test_longer_validation_windows(make):
    data = make(validation_length=3 * LENGTH, validation_tokens=10**6)
    found = batches(data)
    assert found[0].tokens.shape == (16, 3 * LENGTH)
    counted = sum(int((batch.labels != IGNORE).sum()) for batch in found)
    assert counted == sum(source.num_tokens - source.num_documents for source in data._validation.values())


def test_all_evaluations_read_the_same(data):
    expected = batches(data)
    for loader in (data.test_dataloader(), data.predict_dataloader()):
        for one, two in zip(loader, expected, strict=True):
            assert torch.equal(one.tokens, two.tokens)


def test_validation_needs_no_curriculum_if_it_has_a_length(make):
    assert len(make(validation_length=LENGTH).val_dataloader()) > 0
    with pytest.raises(ValueError, match=r"data\.validation_length is missing"):
        make().val_dataloader()


def test_without_held_out_documents(make, tmp_path):
    data = make(validation_fraction=0.0)
    data.use_curriculum(curriculum())
    with pytest.raises(ValueError, match=r"raise data\.validation_fraction, or set limit_val_batches=0"):
        data.val_dataloader()


def test_training_goes_on_without_held_out_documents(make, caplog):
    data = make(validation_fraction=0.0)
    data.use_curriculum(curriculum())
    data.trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    data.trainer.state.fn = TrainerFn.FITTING
    with caplog.at_level(logging.WARNING, logger="nbg_lightning"):
        assert data.val_dataloader() == []
    assert (
        "no documents of any source were held out, so nothing is validated: raise data.validation_fraction"
        in caplog.text
    )
    data.trainer.state.fn = TrainerFn.VALIDATING
    with pytest.raises(ValueError, match="no source has validation documents"):
        data.val_dataloader()


def test_held_out_text_is_never_trained(data):
    for name in COUNTS:
        train, validation = (
            set(data.tokenizer.decode(s.span(0, s.num_tokens)[0]).split("</s>")) - {""}
            for s in (data._train[name], data._validation[name])
        )
        assert not train & validation
        assert len(train | validation) == COUNTS[name]


def test_tokenizer_by_its_name_or_its_settings(folder, sources, tokenizer):
    options = dict(data_dir=str(folder / "names"), num_workers=0, prepare_workers=0)
    found = [
        CurriculumDataModule(sources, given, **options) for given in (str(tokenizer), TokenizerConfig(str(tokenizer)))
    ]
    for data in found:
        data.prepare_data()
        data.setup("fit")
        assert data.load_tokenizer().fingerprint == data.tokenizer.fingerprint == Tokenizer(tokenizer).fingerprint
    assert found[0].fingerprints() == found[1].fingerprints()
    with pytest.raises(FileNotFoundError, match="does not exist; give a folder"):
        CurriculumDataModule(sources, "a/b/c", **options).prepare_data()


def test_without_a_table_each_source_has_the_share_of_its_size(make):
    data = make(sequence_length=LENGTH, tokens_per_step=4 * LENGTH, epochs=2)
    plan = data.curriculum
    windows = {name: data.source_windows(name, LENGTH) for name in COUNTS}
    assert plan.stages[0].mixture == windows
    assert plan.num_steps == round(2 * sum(windows.values()) / 4)
    batch = next(iter(data.train_dataloader()))
    assert batch.tokens.shape == (4, LENGTH)
    data.use_curriculum(curriculum())  # a table of FGWSD takes its place
    assert data.curriculum.stages[0].name != "pretraining"


def test_the_length_of_a_run_without_a_table(make):
    assert make(sequence_length=LENGTH, tokens_per_step=4 * LENGTH, tokens="1024").curriculum.num_steps == 8
    with pytest.raises(ValueError, match="tokens has no effect without sequence_length"):
        make(tokens=1024)
    with pytest.raises(ValueError, match="sequence_length is invalid: 1000000; no source has as many tokens"):
        make(sequence_length=1_000_000, tokens_per_step=1_000_000)


def test_the_tokenizer_is_that_of_the_weights_where_none_is_given(sources, tokenizer, tmp_path):
    data = CurriculumDataModule(sources, data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"there is no tokenizer; give data.init_args.tokenizer, or base_weights"):
        data.load_tokenizer()
    data.base_weights = str(tokenizer)
    assert data.load_tokenizer().fingerprint == Tokenizer(tokenizer).fingerprint
