import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nbg_lightning.core.batch import conversation_row
from nbg_lightning.core.create import create_model
from nbg_lightning.core.head import IGNORE, linear_token_scores
from nbg_lightning.datamodules.ordered import stack_rows
from nbg_lightning.modules.metrics import DomainScores
from nbg_lightning.modules.sft import SFTModule, token_scores, trained_cross_entropy
from nbg_lightning.testing import SMALL_SHAPE


def batch_of(*documents, length=24):
    made = [conversation_row([document], length) for document in documents]
    return stack_rows(made, np.zeros(len(made)), np.zeros(len(made)))


def document(length, trained, weight=1.0):
    weights = np.zeros(length, np.float32)
    weights[trained] = weight
    return np.arange(length) + 3, weights


def module():
    found = SFTModule(SMALL_SHAPE)
    found.model = create_model(SMALL_SHAPE, seed=1)
    return found


def test_count_is_the_sum_of_weights_of_trained_tokens():
    batch = batch_of(document(10, slice(4, 8)), document(20, slice(10, 12), 0.25))
    assert SFTModule(SMALL_SHAPE).count(batch) == {"loss": 4.5}
    batch.weights = None
    assert SFTModule(SMALL_SHAPE).count(batch) == {"loss": 6.0}


def test_loss_by_hand():
    sft, batch = module(), batch_of(document(10, slice(4, 8)), document(20, slice(10, 12), 0.25))
    log_probs = sft.model(batch.tokens, batch.positions).log_softmax(-1)
    expected = -sum(log_probs[0, t, t + 1 + 3] for t in range(3, 7))
    expected = expected - 0.25 * sum(log_probs[1, t, t + 1 + 3] for t in range(9, 11))
    assert sft.losses(batch)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_micro_batch_without_trained_tokens_has_zero_loss_and_gradients():
    sft, batch = module(), batch_of(document(10, slice(0, 0)))
    loss = sft.losses(batch)["loss"]
    loss.backward()
    assert loss.item() == 0 and sft.count(batch) == {"loss": 0}
    assert all(p.grad is not None and not p.grad.any() for p in sft.model.parameters())


def test_gathered_head_is_the_whole_head():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 7, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 11, (2, 7), generator=generator)
    labels[torch.rand(2, 7, generator=generator) < 0.5] = IGNORE
    weights = torch.rand(2, 7, generator=generator, dtype=torch.float64)
    found = trained_cross_entropy(hidden, weight, labels, weights)
    losses = F.cross_entropy((hidden @ weight.t()).flatten(0, 1), labels.flatten(), reduction="none")
    expected = (losses * weights.flatten()).sum()
    assert torch.allclose(found, expected)
    for mine, reference in zip(
        torch.autograd.grad(found, (hidden, weight)), torch.autograd.grad(expected, (hidden, weight)), strict=True
    ):
        assert torch.allclose(mine, reference)


@pytest.mark.parametrize("chunk", [None, 3])
def test_token_scores(chunk):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((2, 9, 8), (11, 8)))
    labels = (hidden @ weight.t()).argmax(-1)
    labels[0, ::2] = 0
    labels[1, :3] = IGNORE
    losses, correct = linear_token_scores(hidden, weight, labels, chunk)
    logits = hidden @ weight.t()
    expected = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(2, 9)
    assert torch.allclose(losses, expected)
    assert torch.equal(correct, (logits.argmax(-1) == labels))
    assert not correct[1, :3].any() and not losses[1, :3].any() and correct.any() and not correct[0].all()
    assert not losses.requires_grad


def test_scores_of_a_batch_and_the_metric():
    sft, batch = module(), batch_of(document(10, slice(4, 8)), document(20, slice(10, 12), 0.25))
    scores = token_scores(sft.model, batch)
    metric = DomainScores(["a", "b", "empty"])
    metric.update(scores.losses, scores.correct, sft._weights(batch), torch.tensor([0, 1]))
    found = metric.compute()
    loss = sft.losses(batch)["loss"].item() / sft.count(batch)["loss"]
    assert found["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert found["val/a/loss"] == pytest.approx(scores.losses[0].sum().item() / 4, rel=1e-5)
    assert found["val/b/loss"] == pytest.approx(scores.losses[1].sum().item() / 2, rel=1e-5)  # one weight: a plain mean
    assert not any("empty" in name for name in found)


def test_metric_by_hand():
    metric = DomainScores(["a", "b"])
    losses = torch.tensor([[1.0, 3.0, 9.0], [2.0, 2.0, 2.0]])
    correct = torch.tensor([[True, False, True], [True, True, False]])
    weights = torch.tensor([[3.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    metric.update(losses, correct, weights, torch.tensor([0, 1]))
    found = metric.compute()
    assert found["val/a/loss"] == (3 * 1 + 1 * 3) / 4 and found["val/a/token_accuracy"] == 0.5
    assert found["val/loss"] == (6 + 6) / 7 and found["val/token_accuracy"] == 3 / 5


def test_tokenizer_with_more_ids_than_the_model_is_refused():
    sft = SFTModule(SMALL_SHAPE)

    class Data:
        vocab_size = SMALL_SHAPE.vocab_size + 1

    class TrainerWithData:
        datamodule = Data

    sft._trainer = TrainerWithData
    with pytest.raises(ValueError, match=r"the tokenizer has 62 ids, the model's vocabulary 61; "):
        sft.setup("fit")
    Data.vocab_size -= 1
    sft.setup("fit")
