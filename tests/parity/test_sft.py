"""SFT against transformers on the same ids and masks; packed against unpacked; one rank against two."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nbg_lightning import ChatDataModule, LanguageModelConfig, ParallelConfig, SFTModule, Trainer, WarmupDecay
from nbg_lightning.core.batch import conversation_row
from nbg_lightning.core.create import create_model
from nbg_lightning.core.names import hf_name
from nbg_lightning.data import ChatList, train_bpe
from nbg_lightning.datamodules.ordered import stack_rows
from nbg_lightning.testing import StepRecorder, full_tensors, run_ranks

SHAPE = LanguageModelConfig(
    vocab_size=290,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    initializer_range=0.1,
)
EXACT = ParallelConfig(compute_dtype="float32")


def conversations(number=9):
    """(ids, loss weights) of different lengths, with prompts, second turns and a tail that is not trained."""
    random = np.random.default_rng(5)
    found = []
    for _ in range(number):
        length = int(random.integers(6, 40))
        ids = random.integers(0, SHAPE.vocab_size, length)
        weights = np.zeros(length, np.float32)
        weights[length // 3 : length // 2] = 1
        weights[2 * length // 3 : length - 1] = 1
        found.append((ids, weights))
    return found


def rows(documents, length, padded=False, rows_of=1000):
    groups = [documents[i : i + rows_of] for i in range(0, len(documents), rows_of)]
    made = [conversation_row(group, length, padded) for group in groups]
    return stack_rows(made, np.zeros(len(made)), np.zeros(len(made)))


def our_gradients(model, batch, micro_batch_tokens=10**6):
    """Loss and gradients as a training step has them: every term over the count of the whole step."""
    module = SFTModule(SHAPE, parallel=EXACT)
    module.model = model
    model.zero_grad()
    micros = batch.split(micro_batch_tokens)
    count = sum(module.count(micro)["loss"] for micro in micros)
    losses = [module.losses(micro)["loss"] / count for micro in micros]
    for loss in losses:
        loss.backward()
    return sum(loss.item() for loss in losses), {n: p.grad.clone() for n, p in model.named_parameters()}


def their_gradients(model, documents):
    """Every conversation on its own through transformers, with its labels; sums over the count of all."""
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=SHAPE.vocab_size,
            hidden_size=SHAPE.hidden_size,
            intermediate_size=SHAPE.intermediate_size,
            num_hidden_layers=SHAPE.num_hidden_layers,
            num_attention_heads=SHAPE.num_attention_heads,
            num_key_value_heads=SHAPE.num_key_value_heads,
            head_dim=SHAPE.head_dim,
            rms_norm_eps=SHAPE.rms_norm_eps,
            rope_theta=SHAPE.rope_theta,
            tie_word_embeddings=False,
        )
    )
    theirs.load_state_dict({hf_name(n): p.detach() for n, p in model.named_parameters()})
    count = sum(int((weights > 0).sum()) for _, weights in documents)
    total = 0.0
    for ids, weights in documents:
        labels = torch.tensor(np.where(weights > 0, ids, -100))[None]
        loss = theirs(input_ids=torch.tensor(ids)[None], labels=labels, num_items_in_batch=count).loss
        loss.backward()
        total += loss.item()
    return total, dict(theirs.named_parameters())


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    for name, gradient in found[1].items():
        assert (gradient - expected[1][name]).abs().max() <= 1e-5, name


def test_loss_and_gradients_are_those_of_transformers():
    model, documents = create_model(SHAPE, seed=2), conversations()
    loss, gradients = their_gradients(model, documents)
    theirs = loss, {name: gradients[hf_name(name)].grad for name, _ in model.named_parameters()}
    assert max(gradient.abs().max() for gradient in theirs[1].values()) > 1e-2  # there is something to compare
    assert_same(our_gradients(model, rows(documents, 400)), theirs)
    assert_same(our_gradients(model, rows(documents, 64, rows_of=1), 130), theirs)


def test_packed_is_unpacked_however_it_is_cut():
    model, documents = create_model(SHAPE, seed=2), conversations()
    documents = [(ids, weights * (0.5 + index % 3)) for index, (ids, weights) in enumerate(documents)]
    alone = our_gradients(model, rows(documents, 48, rows_of=1))
    assert_same(our_gradients(model, rows(documents, 300)), alone)
    assert_same(our_gradients(model, rows(documents[::-1], 150, rows_of=3), 150), alone)
    assert_same(our_gradients(model, rows(documents, 150, padded=True, rows_of=3)), alone)


def test_weights_by_hand():
    """Twice the weight is twice the gradient's share: equal to having the conversation twice."""
    model, documents = create_model(SHAPE, seed=2), conversations(3)
    (ids, weights), *others = documents
    heavier = our_gradients(model, rows([(ids, 2 * weights), *others], 120))
    twice = our_gradients(model, rows([(ids, weights), (ids, weights), *others], 160))
    assert_same(heavier, twice)


def train(folder, tokenizer, devices):
    """A small run on real conversations; its losses, gradient norms and weights."""
    said = [
        {
            "messages": [
                {"role": "user", "content": f"say {n}"},
                {"role": "assistant", "content": f"{n} " * (n % 17 + 1)},
            ]
        }
        for n in range(150)
    ]
    data = ChatDataModule(
        {"short": ChatList(said[:90]), "other": ChatList(said[90:])},
        tokenizer,
        sequence_length=128,
        tokens_per_step=1024,
        epochs=2,
        data_dir=f"{folder}/data",
        validation_fraction=0.1,
        num_workers=0,
        prepare_workers=0,
    )
    module = SFTModule(SHAPE, parallel=EXACT, micro_batch_tokens=256)
    recorder = StepRecorder()
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        default_root_dir=f"{folder}/run-{devices}",
        logger=False,
        enable_progress_bar=False,
        log_every_n_steps=1,
        val_check_interval=5,
        callbacks=[WarmupDecay(1e-2, warmup=0.3), recorder],
    )
    trainer.fit(module, datamodule=data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    steps = [{k: step[k] for k in ("loss", "grad_norm", "lr", "chain")} for step in recorder.steps]
    return steps, full_tensors(module.model.named_parameters()), metrics


def test_two_ranks_are_one(tmp_path):
    tokenizer = str(train_bpe(["say it and say it again, all of it"] * 3, 280, tmp_path / "tokenizer"))
    one = run_ranks(train, 1, str(tmp_path), tokenizer, 1, folder=tmp_path)[0]
    both = run_ranks(train, 2, str(tmp_path), tokenizer, 2, folder=tmp_path)
    assert len(one[0]) > 6 and one[0][-1]["loss"] < 0.8 * one[0][0]["loss"]
    for two in both:
        for step, expected in zip(two[0], one[0], strict=True):
            assert step.pop("chain") == expected["chain"]
            assert step == pytest.approx({k: v for k, v in expected.items() if k != "chain"}, rel=1e-4)
        for name, weight in two[1].items():
            assert torch.allclose(weight, one[1][name], atol=1e-5), name
        assert two[2] == pytest.approx(one[2], rel=1e-4)
    assert {"val/short/loss", "val/other/token_accuracy", "val/token_accuracy"} <= one[2].keys()
