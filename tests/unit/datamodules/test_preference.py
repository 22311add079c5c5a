import json
import logging
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from datasets import Dataset

from nbg_lightning.core.batch import IGNORE
from nbg_lightning.data import (
    ChatList,
    PairHuggingFace,
    PairJsonLines,
    PairList,
    PairParquet,
    Tokenizer,
    sequence_key,
    sources,
)
from nbg_lightning.datamodules.preference import PreferenceDataModule


def pair(number, words=None):
    count = (number * 7) % 23 + 1 if words is None else words
    return {
        "prompt": [{"role": "user", "content": f"what is {number // 2} " * (number % 5 + 1)}],
        "chosen": [{"role": "assistant", "content": f"it is {number} " * count}],
        "rejected": [{"role": "assistant", "content": f"nothing {number}", "reasoning_content": "I guess"}],
    }


PAIRS = [pair(number) for number in range(80)]


@pytest.fixture
def make(tokenizer, in_this_process):
    def make(given=None, **options):
        if not isinstance(given, dict):
            given = {"pairs": given or PairList(PAIRS)}
        defaults = {"sequence_length": 512, "tokens_per_step": 2048, **in_this_process}
        return PreferenceDataModule(given, str(tokenizer), **{**defaults, **options})

    return make


def ready(datamodule):
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def batches(datamodule):
    return list(datamodule.train_dataloader())


def found_pairs(batch):
    """Every pair of a batch as ((inputs, labels) of the chosen, of the rejected)."""
    found = {}
    for tokens, labels, positions, sequence in zip(
        batch.tokens, batch.labels, batch.positions, batch.sequence, strict=True
    ):
        starts = [*(positions == 0).nonzero().flatten().tolist(), len(tokens)]
        for begin, end in pairwise(starts):
            if sequence[begin] >= 0:
                assert (sequence[begin:end] == sequence[begin]).all()
                found[int(sequence[begin])] = (tuple(tokens[begin:end].tolist()), tuple(labels[begin:end].tolist()))
    assert sorted(found) == list(range(len(found)))
    return [(found[number], found[number + 1]) for number in range(0, len(found), 2)]


def test_an_epoch_has_every_pair_once_and_masks_are_right(make, tokenizer):
    data = ready(make({"a": PairList(PAIRS[:50]), "b": PairList(PAIRS[50:])}))
    seen = Counter(found for batch in batches(data) for found in found_pairs(batch))
    assert len(seen) == len(PAIRS) and set(seen.values()) == {1}
    text = Tokenizer(tokenizer)
    for row in PAIRS[:3]:
        header = f"<|im_start|>user\n{row['prompt'][0]['content']}<|im_end|>\n<|im_start|>assistant\n"
        prompt = text.encode(header, special=True)
        answer = [*text.encode(row["chosen"][0]["content"]), text.token_id("<|im_end|>")]
        expected = (tuple((prompt + answer)[:-1]), (IGNORE,) * (len(prompt) - 1) + tuple(answer))
        other = "<think>\nI guess\n</think>\n\n" + row["rejected"][0]["content"]
        (rejected,) = [found[1] for found in seen if found[0] == expected]
        trained = [label for label in rejected[1] if label != IGNORE]
        assert text.decode(trained) == other + "<|im_end|>"


def test_resume_is_one_integer_and_padding_rows_are_empty(make):
    data = ready(make(epochs=2, tokens_per_step=512 * 7))
    served = batches(data)
    assert any((batch.sequence < 0).all(dim=1).any() for batch in served)  # filled up to a whole step
    again = ready(make(epochs=2, tokens_per_step=512 * 7))
    again.load_state_dict({**data.state_dict(), "step": 2})
    for straight, resumed in zip(served[2:], batches(again), strict=True):
        assert torch.equal(straight.tokens, resumed.tokens) and torch.equal(straight.sequence, resumed.sequence)


def test_all_kinds_of_sources_give_the_same(make, tmp_path):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({**row, "score": 1.5}) + "\n" for row in PAIRS))
    table = Dataset.from_list(PAIRS)
    table.to_parquet(tmp_path / "rows.parquet")
    table.rename_columns({"prompt": "question", "chosen": "good", "rejected": "bad"}).save_to_disk(tmp_path / "disk")
    whole = [{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in PAIRS]
    given = {
        "list": PairList(PAIRS),
        "jsonl": PairJsonLines(path=str(tmp_path / "rows.jsonl")),
        "parquet": PairParquet(path=str(tmp_path / "rows.parquet")),
        "hf": PairHuggingFace(
            name_or_folder=str(tmp_path / "disk"), prompt_field="question", chosen_field="good", rejected_field="bad"
        ),
        "whole": PairList(whole),
    }
    prints = set(list(ready(make(given)).fingerprints().values())[:-1])
    assert len(prints) == 1


def test_missing_columns_are_named(make, tmp_path):
    Dataset.from_list([{"question": "q", "chosen": "a", "bad": "b"}]).to_parquet(tmp_path / "rows.parquet")
    source = PairParquet(path=str(tmp_path / "rows.parquet"))
    with pytest.raises(ValueError, match=r"no column 'rejected'; there are question, chosen, bad: set rejected_field"):
        ready(make(source))


def test_workers_and_parts_change_nothing(make, tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    source = PairJsonLines(path=str(tmp_path / "rows.jsonl"))
    straight = ready(make(source, validation_fraction=0.2, data_dir=str(tmp_path / "one")))
    monkeypatch.setattr(sources.source, "MIN_PART_BYTES", 3000)
    monkeypatch.setattr(sources.source, "MAX_PART_BYTES", 3000)
    assert len(source.parts()) > 3
    parallel = ready(make(source, validation_fraction=0.2, prepare_workers=2, data_dir=str(tmp_path / "two")))
    everything = [[(ids.tolist(), mask.tolist()) for ids, mask in data.sequences()] for data in (straight, parallel)]
    assert everything[0] == everything[1] and len(everything[0]) == 2 * len(PAIRS)
    assert straight.counts == parallel.counts and straight.counts["pairs"].rendered == len(PAIRS)


def test_pairs_of_one_prompt_are_on_one_side(make):
    rows = [{**pair(3), "chosen": f"answer {number}", "prompt": f"question {number % 20}"} for number in range(100)]
    data = ready(make(PairList(rows), validation_fraction=0.3))

    def prompts(part):
        source = part["pairs"][0]
        return {
            tuple(ids[: mask.argmax()])
            for index in range(source.num_documents)
            for ids, mask in source.pair(index).sides
        }

    train, validation = prompts(data._train), prompts(data._validation)
    assert not train & validation and len(train | validation) == 20 and validation
    loader = list(data.val_dataloader())
    assert sum(batch.num_pairs for batch in loader) == data._validation["pairs"][0].num_documents


BAD = {
    "equal": ({"prompt": "a", "chosen": "b", "rejected": "b"}, "the chosen and the rejected answer are the same"),
    "empty": ({"prompt": "a", "chosen": "b", "rejected": ""}, "the rejected answer is empty"),
    "mismatch": ({**pair(1), "chosen": [*pair(7)["prompt"], *pair(1)["chosen"]]}, "does not begin with the prompt"),
    "missing": ({"prompt": "a", "chosen": "b"}, "no 'rejected'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_pair_is_an_error_or_a_counted_drop(make, tmp_path, name, caplog):
    row, message = BAD[name]
    rows = [*PAIRS[:5], row, *PAIRS[5:9], row]
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = PairJsonLines(path=str(tmp_path / "bad.jsonl"))
    with pytest.raises(ValueError, match=rf"source 'pairs': .*bad.jsonl:6: .*{message}") as caught:
        ready(make(source))
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.WARNING, "nbg_lightning"):
        data = ready(make(source, on_invalid="drop"))
    assert data.counts["pairs"].invalid == 2 and data._train["pairs"][0].num_documents == 9
    assert "2 of 11 pairs dropped (2 invalid); first: " in caplog.text and "bad.jsonl:6" in caplog.text


def test_equal_in_tokens(make):
    row = {"prompt": "a", "chosen": [{"role": "assistant", "content": "b", "weight": 1}], "rejected": "b"}
    with pytest.raises(
        ValueError, match=r"source 'pairs': pair 0: the chosen and the rejected answer are the same in tokens"
    ):
        ready(make(PairList([row])))


def test_too_long_is_dropped_and_told(make, caplog):
    rows = [*PAIRS[:4], pair(7, words=200)]
    with caplog.at_level(logging.WARNING, "nbg_lightning"):
        data = ready(make(PairList(rows)))
    assert data.counts["pairs"].too_long == 1
    assert "1 of 5 pairs dropped (1 too long); first: pair 4: " in caplog.text
    assert "more than max_length 512" in caplog.text
    with pytest.raises(ValueError, match=r"pair 4: .*: raise it, or set overflow to drop"):
        ready(make(PairList(rows), overflow="error"))
    with pytest.raises(ValueError, match="no pair to train on: 1 read, 1 too long"):
        ready(make(PairList(rows[-1:])))
    assert ready(make(PairList(rows), max_length=60)).counts["pairs"].too_long > 1


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ({}, {}, "PreferenceDataModule needs at least one source"),
        (
            {"a": ChatList([])},
            {},
            "source 'a' is invalid: a ChatList, which gives conversations; PreferenceDataModule takes pairs",
        ),
        (None, {"overflow": "truncate_left"}, "overflow is invalid: .truncate_left."),
        ({"a": PairList(PAIRS, weight=1), "b": PairList(PAIRS)}, {}, "source 'b' has no weight"),
    ],
)
def test_settings_that_cannot_work(make, given, options, message):
    with pytest.raises(ValueError, match=message):
        make(given, **options)


def test_template_of_the_tokenizer_gives_the_same_masks(make):
    rows = [{**row, "rejected": "nothing"} for row in PAIRS[:20]]
    ours, theirs = (ready(make(PairList(rows), template=name)) for name in ("nanbeige", "tokenizer"))
    for mine, other in zip(ours.sequences(), theirs.sequences(), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, other, strict=True))
    assert ours.template_identity == theirs.template_identity  # the tokenizer's own is that format


def targets_of(ids, trained):
    """A made-up teacher that lists two ids, and a reference."""
    count = int(trained[1:].sum())
    labels = ids[1:][trained[1:]]
    listed = np.stack((labels, (labels + 1) % 290), axis=1)
    return listed, np.log(np.full((count, 2), 0.4)), np.log(np.full(count, 0.2)), -labels / 100.0


@pytest.fixture
def cached(make, tmp_path):
    """A datamodule without a cache, and a cache for it."""
    from nbg_lightning.teachers.cache_format import CacheIdentity
    from nbg_lightning.teachers.cache_writer import CacheWriter

    def build(data, skip=0, **changes):
        identity = dict(
            teacher="t",
            reference="r",
            tokenizer=data.tokenizer.fingerprint,
            template=data.template_identity,
            data="d",
            k=2,
            temperature=1.0,
            vocab_size=290,
        )
        folder = tmp_path / "cache"
        with CacheWriter(folder, CacheIdentity(**{**identity, **changes})) as writer:
            for number, (ids, trained) in enumerate(data.sequences()):
                if number >= skip:
                    writer.append(sequence_key(ids, trained), *targets_of(ids, trained))
            writer.finish()
        return str(folder)

    return build


def test_cached_targets_are_at_the_trained_positions(make, cached):
    folder = cached(ready(make(validation_fraction=0.2)))
    data = ready(make(validation_fraction=0.2, cache=folder))
    for batch in [*batches(data), *data.val_dataloader()]:
        trained = batch.labels != IGNORE
        assert trained.any() or not batch.num_pairs
        labels = batch.labels[trained]
        assert torch.equal(batch.teacher_ids[trained][:, 0].long(), labels)
        torch.testing.assert_close(batch.reference_log_probs[trained], -labels / 100.0)
        mass = batch.teacher_log_probs[trained].exp().sum(-1) + batch.teacher_tail[trained].exp()
        torch.testing.assert_close(mass, torch.ones_like(mass))
        micro = batch.split(512)[0]
        assert micro.teacher_ids.shape == (1, 512, 2)


def test_cache_of_something_else_is_refused(make, cached, tmp_path):
    data = ready(make())
    folder = cached(data, skip=1)
    with pytest.raises(
        ValueError, match="lacks pair 0 of source 'pairs', and is of other data; run nbg build-cache again"
    ):
        ready(make(cache=folder))
    with pytest.raises(ValueError, match="template") as caught:
        ready(make(cache=folder, add_bos=True))
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="nbg build-cache"):
        ready(make(cache=str(tmp_path / "nothing")))
