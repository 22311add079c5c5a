"""A judge trained on comparisons with planted preferences recognizes them on unseen pairs, prompted as in GRPO."""

import dataclasses
import random

import pytest

from nbg_lightning.construction.pairs.comparisons import ComparisonBuilder
from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data import ChatJsonLines, PairList, Tokenizer, train_bpe
from nbg_lightning.data.question import Question
from nbg_lightning.engines import LocalEngine
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.rewards import Group, PairwisePreferenceReward
from nbg_lightning.rewards.preference import PROMPT
from nbg_lightning.testing import SMALL_SHAPE
from nbg_lightning.testing.runs import UnmeasuredThroughput

WORDS = ("red", "blue", "green", "all", "now", "then")
SHAPE = dataclasses.replace(
    SMALL_SHAPE,
    vocab_size=420,
    hidden_size=64,
    intermediate_size=128,
    head_dim=16,
    num_hidden_layers=3,
    max_position_embeddings=512,
)


def pairs(count, seed):
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        chosen, rejected = ([draw.choice(WORDS) for _ in range(3)] for _ in range(2))
        chosen[0] = "please"
        rows.append({"prompt": f"{number % 10} ?", "chosen": " ".join(chosen), "rejected": " ".join(rejected)})
    return rows


def asked(row):
    answers = (
        Answer(Completion((), (), "stop", 0, 0, 0, text=text), text, None, text)
        for text in (row["chosen"], row["rejected"])
    )
    return Group(Question(({"role": "user", "content": row["prompt"]},), None, "own", {}), tuple(answers))


@pytest.mark.slow
def test_a_trained_judge_finds_what_was_planted(tmp_path):
    from nbg_lightning import ChatDataModule, SFTModule, StepCheckpoint, Trainer, WarmupDecay

    train_bpe([PROMPT + " ".join((*WORDS, "please", "A B tie"))] * 3, 380, tmp_path / "tokenizer")
    tokenizer = Tokenizer(tmp_path / "tokenizer")
    save_hugging_face(create_model(SHAPE, seed=1), tmp_path / "base", tokenizer, "float32", verify=False)
    ComparisonBuilder(out=str(tmp_path / "built"), pairs={"own": PairList(pairs(500, 1))}, criteria="").run()
    data = ChatDataModule(
        {"own": ChatJsonLines(path=str(tmp_path / "built" / "conversations.jsonl"))},
        str(tmp_path / "tokenizer"),
        sequence_length=512,
        tokens_per_step=8192,
        epochs=8,
        data_dir=str(tmp_path / "data"),
        num_workers=0,
        prepare_workers=0,
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=str(tmp_path / "judge"),
        logger=False,
        enable_progress_bar=False,
        callbacks=[WarmupDecay(4e-3), UnmeasuredThroughput(), StepCheckpoint()],
    )
    module = SFTModule(base_weights=str(tmp_path / "base"), parallel=ParallelConfig(compute_dtype="float32"))
    trainer.fit(module, datamodule=data)
    weights = str(tmp_path / "judge")
    groups = [asked(row) for row in pairs(50, 2)]
    with PairwisePreferenceReward(LocalEngine(weights), weights, criteria="", judge_tokens=4) as reward:
        results = reward.score(groups)
    scores = [[result.score for result in row] for row in results]
    print(scores[:10], sum(row == [1.0, 0.0] for row in scores))
    assert sum(row == [1.0, 0.0] for row in scores) >= 45  # in both orders
