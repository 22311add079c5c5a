"""A reward model on two gloo ranks equals one; a resumed run equals an uninterrupted one; planted preferences are learned."""

import random
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.data import PairList, Tokenizer, train_bpe
from nbg_lightning.testing import StepRecorder, full_tensors, run_ranks

SHAPE = LanguageModelConfig(
    vocab_size=280,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
)
TERMS = ("loss", "preference", "accuracy", "margin", "chosen_score", "rejected_score", "grad_norm")
WORDS = ("it", "is", "all", "of", "say", "again", "and")


def planted(count, seed):
    """Pairs that differ only in one word, anywhere, which the chosen answer has and the rejected one lacks."""
    draw = random.Random(seed)

    def words():
        return [draw.choice(WORDS) for _ in range(draw.randint(3, 6))]

    pairs = []
    for _ in range(count):
        chosen = words()
        chosen[draw.randrange(len(chosen))] = "please"
        pairs.append(
            {"prompt": f"say {draw.randint(0, 99)}", "chosen": " ".join(chosen), "rejected": " ".join(words())}
        )
    return pairs


PAIRS, UNSEEN = planted(300, 0), planted(20, 1)


def prepare(folder):
    """A tokenizer and a language model with a tied head; one with more heads, which four ranks can share."""
    tokenizer = train_bpe([" ".join((*WORDS, "please"))] * 3, 280, folder / "tokenizer")
    shape = LanguageModelConfig(**{**vars(SHAPE), "tie_word_embeddings": True})
    more = LanguageModelConfig(**{**vars(shape), "num_attention_heads": 4, "head_dim": 8})
    for name, each in (("base", shape), ("more heads", more)):
        save_hugging_face(create_model(each, seed=2), folder / name, Tokenizer(tokenizer), "float32", verify=False)


def train(folder, devices, resume=None, name="run", every=None, lora=None, max_steps=-1, base="base", **settings):
    from nbg_lightning import PreferenceDataModule, RewardModule, StepCheckpoint, Trainer, WarmupDecay

    data = PreferenceDataModule(
        {"a": PairList(PAIRS[:200]), "b": PairList(PAIRS[200:])},
        f"{folder}/tokenizer",
        sequence_length=192,
        tokens_per_step=768,
        epochs=1.5,
        validation_fraction=0.2,
        data_dir=f"{folder}/data",
        num_workers=0,
        prepare_workers=0,
    )
    module = RewardModule(
        base_weights=f"{folder}/{base}",
        lora=lora,
        parallel=ParallelConfig(compute_dtype="float32", **settings),
        micro_batch_tokens=192,
        share_prefixes=devices > 1,  # and one rank does not: sharing changes nothing either
    )
    recorder = StepRecorder(TERMS)
    checkpoints = StepCheckpoint(every_n_steps=every, keep=9)
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        default_root_dir=f"{folder}/{name}",
        logger=False,
        max_steps=max_steps,
        enable_progress_bar=False,
        log_every_n_steps=1,
        callbacks=[WarmupDecay(6e-3), recorder, checkpoints],
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume)
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    steps = [{key: step[key] for key in (*TERMS, "chain")} for step in recorder.steps]
    return steps, full_tensors(module.model.named_parameters()), metrics


KINDS = {"all weights": None, "adapter": LoRAConfig(rank=4)}


class Runs(NamedTuple):
    """A run on one rank, what was resumed from its middle, and the runs on two ranks as each saw them.

    Each of these ranks has its own pairs, and at the start of another run its part of the tokens of all pairs.
    """

    folder: str
    straight: Any
    resumed: Any
    two: list[Any]
    shared: list[Any]


def on_one_rank(folder):
    found = {}
    for kind, lora in KINDS.items():
        straight = train(folder, 1, name=f"{kind} straight", every=12, lora=lora)
        middle = f"{folder}/{kind} straight/checkpoints/step-00000012"
        found[kind] = straight, train(folder, 1, resume=middle, name=f"{kind} resumed", lora=lora)
    return found


def on_two_ranks(folder):
    found = {}
    for kind, lora in KINDS.items():
        shared = train(folder, 2, name=f"{kind} shared", lora=lora, max_steps=6, context=2)
        found[kind] = train(folder, 2, name=f"{kind} of two", lora=lora), shared
    return found


MORE_HEADS = {"base": "more heads"}


def on_four_ranks(folder):
    """A group of four, and two groups of two; and what a group of four makes of a checkpoint of one rank."""
    found = [train(folder, 4, name=f"{size} of 4", max_steps=8, context=size, **MORE_HEADS) for size in (4, 2)]
    middle = f"{folder}/alone/checkpoints/step-00000004"
    return *found, train(folder, 4, resume=middle, name="resumed", max_steps=8, context=4, **MORE_HEADS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reward")
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def launches(folder):
    [one] = run_ranks(on_one_rank, 1, str(folder), folder=folder, timeout=900)
    both = run_ranks(on_two_ranks, 2, str(folder), folder=folder, timeout=900)
    return {
        kind: Runs(f"{folder}/{kind} straight", *one[kind], *zip(*(rank[kind] for rank in both), strict=True))
        for kind in KINDS
    }


@pytest.fixture(params=list(KINDS))
def runs(launches, request):
    return launches[request.param]


def test_what_was_planted_is_found_on_held_out_pairs(runs):
    steps, _, metrics = runs.straight
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=0.02)
    assert all(step["loss"] == step["preference"] for step in steps)
    assert min(metrics["val/a/accuracy"], metrics["val/b/accuracy"]) >= 0.9
    assert metrics["val/loss"] == metrics["val/preference"]
    assert metrics["val/calibration_error"] < 0.25
    assert metrics["val/chosen_score"] - metrics["val/rejected_score"] == pytest.approx(metrics["val/margin"], abs=1e-5)


def test_two_ranks_are_one(runs):
    steps, weights, metrics = runs.straight
    for two in runs.two:
        assert_same_steps(two[0][:8], steps[:8])
        assert two[0][-1]["chain"] == steps[-1]["chain"]
        assert two[2] == pytest.approx(metrics, rel=0.05, abs=0.02)  # rounding grows over the steps
        assert two[1].keys() == weights.keys()


def test_two_ranks_that_share_pairs_are_one(runs):
    for shared in runs.shared:
        assert_same_steps(shared[0], runs.straight[0][:6])


@pytest.mark.slow
def test_four_ranks_that_share_pairs_are_one(folder):
    steps = train(folder, 1, name="alone", every=4, max_steps=8, **MORE_HEADS)[0]
    for of_four, of_two, resumed in run_ranks(on_four_ranks, 4, str(folder), folder=folder, timeout=600):
        assert_same_steps(of_four[0], steps)
        assert_same_steps(of_two[0], steps)
        assert_same_steps(resumed[0], steps[4:])


def assert_same_steps(found, expected):
    for step, one in zip(found, expected, strict=True):
        assert step["chain"] == one["chain"]
        terms = {name: one[name] for name in TERMS}
        assert {name: step[name] for name in TERMS} == pytest.approx(terms, rel=1e-3, abs=1e-5)


def test_resume_is_exact(runs):
    assert runs.resumed[0] == runs.straight[0][12:]
    assert all(torch.equal(weight, runs.straight[1][name]) for name, weight in runs.resumed[1].items())


def test_scores_are_those_of_transformers_and_of_the_reward(runs, tmp_path, capsys):
    """The run's folder as `ModelReward` reads it, and its export as transformers does."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from nbg_lightning.commands.export_weights import main
    from nbg_lightning.rewards import ModelReward

    main([runs.folder, str(tmp_path / "exported"), "--dtype", "float32"])
    assert "logits of transformers differ from ours" in capsys.readouterr().out
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported")
    assert theirs.config.num_labels == 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    found = []
    with ModelReward(runs.folder) as ours, ModelReward(str(tmp_path / "exported")) as back:
        for pair in UNSEEN[:5]:
            said = [{"role": "user", "content": pair["prompt"]}, {"role": "assistant", "content": pair["chosen"]}]
            text = tokenizer.apply_chat_template(said, tokenize=False).rstrip("\n")  # it ends with the end of the turn
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.no_grad():
                expected = theirs(ids).logits[0, 0].item()
            arrays = [ids[0].numpy().astype(np.int64)]
            assert ours.scores(arrays)[0] == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert back.scores(arrays)[0] == pytest.approx(expected, rel=1e-4, abs=1e-5)
            found.append(expected)
    assert sum(score > 0 for score in found) >= 3  # they are the chosen ones
