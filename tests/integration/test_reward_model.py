"""A reward model of planted preferences as the reward of GRPO: the planted property changes, and nothing else measured."""

import random
import statistics

import pytest

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data import ChatList, PairList, Tokenizer
from nbg_lightning.data.tokenizer import train_bpe
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.rl.policy_loss import PolicyLossConfig
from nbg_lightning.testing.grpo import GRPO_SHAPE, train_small_grpo
from nbg_lightning.testing.runs import UnmeasuredThroughput

WORDS = ("it", "is", "red", "blue", "green", "all", "of", "them", "now", "then")
PLANTED = "please"
EXACT = ParallelConfig(compute_dtype="float32")


def words(draw, share, lengths=(3, 6)):
    said = [draw.choice(WORDS) for _ in range(draw.randint(*lengths))]
    if draw.random() < share:
        said[0] = PLANTED  # in one place: a longer answer has no better chance of it
    return said


def pairs(count, seed):
    """Of two answers of any length one begins with the word; lengths and other words say nothing."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        chosen, rejected = words(draw, 1.0, (1, 12)), words(draw, 0.0, (1, 12))
        rows.append({"prompt": f"{number % 40} ?", "chosen": " ".join(chosen), "rejected": " ".join(rejected)})
    return rows


def fit(module, data, folder, lr):
    from nbg_lightning import StepCheckpoint, Trainer, WarmupDecay

    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=str(folder),
        logger=False,
        enable_progress_bar=False,
        callbacks=[WarmupDecay(lr), UnmeasuredThroughput(), StepCheckpoint()],
    )
    trainer.fit(module, datamodule=data)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def common(folder):
    return {
        "tokenizer": str(folder / "tokenizer"),
        "sequence_length": 256,
        "tokens_per_step": 2048,
        "data_dir": str(folder / "data"),
        "num_workers": 0,
        "prepare_workers": 0,
    }


def measured(rollouts, tokenizer):
    """Of a step's answers: share with the word, length in words, share that ended, share of red and blue among colours."""
    texts = [(answer.final or "", answer.finished) for rollout in rollouts for answer in rollout.answers]
    said = [text.split() for text, _ in texts]
    colours = [word for each in said for word in each if word in ("red", "blue", "green")]
    return {
        "planted": statistics.mean(PLANTED in each for each in said),
        "length": statistics.mean(map(len, said)),
        "finished": statistics.mean(finished for _, finished in texts),
        "colours": statistics.mean(word != "green" for word in colours),
    }


@pytest.mark.slow
def test_grpo_on_a_reward_model_moves_what_was_planted_alone(tmp_path):
    from nbg_lightning import ChatDataModule, PreferenceDataModule, RewardModule, SFTModule
    from nbg_lightning.rewards import ModelReward

    texts = [" ".join((*WORDS, PLANTED))] * 3
    tokenizer = Tokenizer(train_bpe(texts, GRPO_SHAPE.vocab_size, tmp_path / "tokenizer"))
    save_hugging_face(create_model(GRPO_SHAPE, seed=1), tmp_path / "base", tokenizer, "float32", verify=False)
    draw = random.Random(5)
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"{n % 40} ?"},
                {"role": "assistant", "content": " ".join(words(draw, 0.2))},
            ]
        }
        for n in range(1200)
    ]
    chat = ChatDataModule({"own": ChatList(chats)}, epochs=12, **common(tmp_path))
    fit(SFTModule(base_weights=str(tmp_path / "base"), parallel=EXACT), chat, tmp_path / "sft", 6e-3)
    data = PreferenceDataModule({"own": PairList(pairs(900, 3))}, validation_fraction=0.2, epochs=3, **common(tmp_path))
    reward = RewardModule(base_weights=str(tmp_path / "sft"), parallel=EXACT, center=0.01)
    accuracy = fit(reward, data, tmp_path / "reward", 3e-3)["val/accuracy"]
    assert accuracy >= 0.9
    run = train_small_grpo(
        tmp_path / "grpo",
        tokenizer=tmp_path / "tokenizer",
        steps=90,
        reward=ModelReward(str(tmp_path / "reward")),
        module_options={
            "core": None,
            "base_weights": str(tmp_path / "sft"),
            "max_new_tokens": 24,
            "optimizer": AdamWConfig(lr=5e-4, weight_decay=0.0),
            "group_size": 8,
            "loss": PolicyLossConfig("dr_grpo", kl_coefficient=0.02, mask_truncated=False),
        },
        data_options={"prompts_per_step": 8},
    )
    first, last = ([r for step in steps for r in step] for steps in (run.rollouts[:6], run.rollouts[-6:]))
    before, after = measured(first, tokenizer), measured(last, tokenizer)
    print(accuracy, before, after)
    assert before["planted"] < 0.4
    assert after["planted"] > 0.9
    assert after["length"] == pytest.approx(before["length"], abs=0.8)
    assert after["finished"] > before["finished"] - 0.05
    assert after["colours"] == pytest.approx(before["colours"], abs=0.15)
