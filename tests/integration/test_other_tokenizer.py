"""A teacher with another tokenizer brings a student closer to it than SFT on the same texts does."""

import math
import random
import statistics

import pytest
import torch

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.core.weights import load_base_weights, read_shape
from nbg_lightning.data import ChatList, PairList, Tokenizer, train_bpe
from nbg_lightning.testing.grpo import GRPO_SHAPE
from nbg_lightning.testing.runs import UnmeasuredThroughput

EXACT = ParallelConfig(compute_dtype="float32")
WORDS = ("the", "answer", "question", "nothing", "is", "another", "there", "was", "of", "all", "other", "things")
SEEDS = range(5)
T_95 = 2.776  # of four degrees of freedom


def texts(count, seed):
    """Answers from a chain in which each word has three successors, the first of them the likeliest."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        place = draw.randrange(len(WORDS))
        said = [WORDS[place]]
        for _ in range(draw.randint(5, 9)):
            place = (place * 5 + draw.choices((1, 3, 8), (6, 3, 1))[0]) % len(WORDS)
            said.append(WORDS[place])
        rows.append(("go on", " ".join(said)))
    return rows


def fit(module, data, folder, lr):
    from nbg_lightning import StepCheckpoint, Trainer, WarmupDecay

    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=str(folder),
        logger=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        callbacks=[WarmupDecay(lr), UnmeasuredThroughput(), StepCheckpoint()],
    )
    trainer.fit(module, datamodule=data)
    return folder


def log_likelihoods(weights, rows):
    """Natural log-probability of each answer with its end, by a model with its own tokenizer, without chunks."""
    from nbg_lightning.chat import Conversation
    from nbg_lightning.data.tokenizer import load_tokenizer
    from nbg_lightning.engines.chat import ChatFormat

    model = create_model(read_shape(str(weights)), draw=False)
    load_base_weights(model, str(weights))
    renderer = ChatFormat(load_tokenizer(str(weights))).renderer
    found = []
    for prompt, answer in rows:
        said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        rendered = renderer.render(Conversation(said))
        ids = torch.tensor(rendered.ids)
        trained = torch.tensor(rendered.loss_weights[1:]) > 0
        with torch.no_grad():
            log_p = model(ids[None, :-1])[0].log_softmax(-1).gather(-1, ids[1:, None]).squeeze(-1)
        found.append(log_p[trained].sum().item())
    return found


def common(folder, tokenizer, tokens_per_step):
    return {
        "tokenizer": str(tokenizer),
        "sequence_length": 256,
        "tokens_per_step": tokens_per_step,
        "data_dir": str(folder / "data"),
        "num_workers": 0,
        "prepare_workers": 0,
    }


def chats(rows):
    return ChatList(
        [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in rows]
    )


@pytest.mark.slow
def test_a_student_comes_closer_to_the_teacher_than_by_sft_on_the_same_texts(tmp_path):
    from nbg_lightning import ChatDataModule, DPDModule, PreferenceDataModule, SFTModule

    corpus = [answer for _, answer in texts(200, 99)]
    ours = train_bpe(corpus, 290, tmp_path / "ours")
    theirs = train_bpe([text[::-1] for text in corpus] + corpus[:20], 320, tmp_path / "theirs")
    save_hugging_face(create_model(GRPO_SHAPE, seed=7), tmp_path / "student", Tokenizer(ours), "float32", verify=False)
    wide = {**vars(GRPO_SHAPE), "vocab_size": 320, "hidden_size": 64, "intermediate_size": 128}
    save_hugging_face(
        create_model(type(GRPO_SHAPE)(**wide), seed=8), tmp_path / "large", Tokenizer(theirs), "float32", verify=False
    )
    data = ChatDataModule({"own": chats(texts(2000, 1))}, epochs=3, **common(tmp_path, theirs, 2048))
    teacher = fit(SFTModule(base_weights=str(tmp_path / "large"), parallel=EXACT), data, tmp_path / "teacher", 5e-3)
    held_out = texts(100, 2)
    expected = log_likelihoods(teacher, held_out)
    sizes = [len(answer) for _, answer in held_out]

    def distance(weights):
        """Mean difference of the log-likelihoods of held-out answers, in nats a byte."""
        found = log_likelihoods(weights, held_out)
        return statistics.mean(abs(a - b) / size for a, b, size in zip(found, expected, sizes, strict=True))

    arms = {"sft": [], "chunks": []}
    for seed in SEEDS:
        rows = texts(120, 10 + seed)
        begin = {"base_weights": str(tmp_path / "student"), "parallel": EXACT}
        chat = ChatDataModule({"own": chats(rows)}, epochs=8, seed=seed, **common(tmp_path, ours, 1024))
        arms["sft"].append(distance(fit(SFTModule(**begin), chat, tmp_path / f"sft-{seed}", 4e-3)))
        pairs = PairList([{"prompt": q, "chosen": a, "rejected": "none"} for q, a in rows])
        data = PreferenceDataModule({"own": pairs}, epochs=8, seed=seed, **common(tmp_path, ours, 1024))
        module = DPDModule(teacher=str(teacher), w_dpo=0.0, w_neg=0.0, **begin)
        arms["chunks"].append(distance(fit(module, data, tmp_path / f"chunks-{seed}", 4e-3)))
        assert module.alignment is not None and module.alignment.pair.unaligned == 0
    differences = [a - b for a, b in zip(arms["sft"], arms["chunks"], strict=True)]
    mean, half = statistics.mean(differences), T_95 * statistics.stdev(differences) / math.sqrt(len(differences))
    print({"arms": arms, "difference": mean, "interval_95": [mean - half, mean + half]})
    assert mean - half > 0
