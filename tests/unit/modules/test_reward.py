"""RewardModule on a small model: naive references, independence of micro-batches, calibration, and errors."""

import dataclasses

import numpy as np
import pytest
import torch

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.core.lora import trained_parameters
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.core.names import HEAD, LORA_B, is_adapter
from nbg_lightning.core.weights import load_base_weights, read_shape
from nbg_lightning.data.pair_batch import pair_row, stack_pairs
from nbg_lightning.data.scored_batch import ScoredBatch
from nbg_lightning.losses.reward import RewardLoss, reward_loss
from nbg_lightning.modules.calibration import Calibration
from nbg_lightning.modules.reward import TERMS, RewardModule
from nbg_lightning.modules.sft import SFTModule
from nbg_lightning.testing import SMALL_SHAPE, random_pairs

EXACT = ParallelConfig(compute_dtype="float32")
LENGTH = 48


PAIRS = random_pairs(7)


def batch_of(groups):
    """Each group of pairs is a row; one empty row more."""
    rows = [pair_row(group, LENGTH * len(groups[0])) for group in [*groups, []]]
    return stack_pairs(rows, np.arange(len(rows)) % 2, np.zeros(len(rows)))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A language model with a tied head, whose weights differ enough to matter."""
    model = create_model(dataclasses.replace(SMALL_SHAPE, tie_word_embeddings=True), seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.0 if "norm" in name else 5.0)
    folder = tmp_path_factory.mktemp("base") / "model"
    save_hugging_face(model, folder, dtype="float32", verify=False)
    return str(folder)


@pytest.fixture
def make(base):
    def make(**options):
        module = RewardModule(base_weights=base, parallel=EXACT, **options)
        module.model = create_model(module.shape, seed=1, draw=False, lora=options.get("lora"))
        load_base_weights(module.model, base)
        for name, parameter in module.model.named_parameters():
            if name.endswith(LORA_B):  # an adapter that counts
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
        module.manual_backward = lambda loss: loss.backward()
        return module

    return make


def step(module, micro_batches):
    """What `training_step` does to the gradients, without a trainer."""
    module.model.zero_grad()
    counts: dict = {}
    for micro in micro_batches:
        for name, value in module.count(micro).items():
            counts[name] = counts.get(name, 0.0) + value
    sums = module._backward(micro_batches, counts)
    means = {name: float(sums[name]) / counts[name] for name in counts}
    return means, {name: p.grad.clone() for name, p in trained_parameters(module.model).items()}


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=3)], ids=["all weights", "adapter"])
@pytest.mark.parametrize("loss", ["bradley_terry", "pointwise"])
@pytest.mark.parametrize("share_prefixes", [False, True])
def test_loss_and_gradients_are_those_of_single_sequences(make, loss, share_prefixes, lora):
    module = make(loss=loss, center=0.01, share_prefixes=share_prefixes, lora=lora)
    cuts = {
        "one row a pair": batch_of([[pair] for pair in PAIRS]).split(LENGTH),
        "packed": batch_of([PAIRS[:4], PAIRS[4:]]).split(10**6),
    }
    found = {
        name: step(module, [ScoredBatch.of(micro, module.shortest_prefix) for micro in micros])
        for name, micros in cuts.items()
    }
    scores = torch.stack(
        [module.model(torch.from_numpy(ids)[None])[0, -1, 0] for pair in PAIRS for ids, _ in pair.sides]
    )
    expected = reward_loss(scores[0::2], scores[1::2], RewardLoss(loss, center=0.01)).mean()
    module.model.zero_grad()
    expected.backward()
    margin = (scores[0::2] - scores[1::2]).detach()
    for means, gradients in found.values():
        assert means["preference"] == pytest.approx(expected.item(), rel=1e-5)
        assert means["margin"] == pytest.approx(margin.mean().item(), rel=1e-4, abs=1e-6)
        assert means["accuracy"] == pytest.approx((margin > 0).double().mean().item())
        trained = trained_parameters(module.model)
        assert gradients.keys() == trained.keys()
        for name, parameter in trained.items():
            assert torch.allclose(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6), name


def test_each_pair_belongs_to_the_domain_of_its_row(make):
    batch = batch_of([PAIRS[:3], PAIRS[3:6]])
    scored = ScoredBatch.of(batch.split(10**6)[0], None)
    assert scored.domain.tolist() == [0, 0, 0, 1, 1, 1]
    assert scored.num_pairs == 6
    assert scored.num_tokens == sum(len(ids) for pair in PAIRS[:6] for ids, _ in pair.sides)  # no padding
    moved = scored.to(torch.device("cpu"))
    assert moved.ends.tolist() == scored.ends.tolist()


def test_a_micro_batch_without_pairs_gives_no_terms_and_zero_gradients(make):
    module = make()
    empty = ScoredBatch.of(batch_of([[pair] for pair in PAIRS[:1]]).split(LENGTH)[1], None)
    assert module.count(empty) == dict.fromkeys(TERMS, 0.0)
    terms = module.losses(empty)
    assert {name: term.item() for name, term in terms.items()} == dict.fromkeys(TERMS, 0.0)
    terms["preference"].backward()
    assert all((p.grad == 0).all() for p in module.model.parameters())


def test_the_head_is_new_and_the_rest_is_the_base(make, base):
    model = make().model
    again = create_model(model.shape, seed=1, draw=False)
    load_base_weights(again, base)
    assert model.lm_head.weight.shape == (1, SMALL_SHAPE.hidden_size)
    assert 0 < model.lm_head.weight.std() < 0.05
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert sum(p.numel() for p in model.parameters()) == model.shape.num_parameters


def test_an_adapter_is_trained_with_the_head_and_nothing_else(make):
    trained = trained_parameters(make(lora=LoRAConfig(rank=3, targets=["q_proj"])).model)
    assert {name: parameter.shape[0] for name, parameter in trained.items() if not is_adapter(name)} == {HEAD: 1}
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}


def test_refused(base, make, tmp_path):
    with pytest.raises(ValueError, match="loss is invalid: 'dpo'"):
        RewardModule(base_weights=base, loss="dpo")
    save_hugging_face(make().model, tmp_path / "rm", dtype="float32")
    assert read_shape(tmp_path / "rm", may_score=True).score_head
    with pytest.raises(ValueError, match="is a reward model: it scores texts and cannot continue them"):
        SFTModule(base_weights=str(tmp_path / "rm"))
    with pytest.raises(ValueError, match="score_head is invalid: true"):
        SFTModule(core=dataclasses.replace(SMALL_SHAPE, score_head=True))
    with pytest.raises(ValueError, match="tie_word_embeddings=True is invalid with score_head"):
        dataclasses.replace(SMALL_SHAPE, score_head=True, tie_word_embeddings=True)


def test_a_reward_model_goes_on_from_a_reward_model(make, tmp_path):
    first = make().model
    save_hugging_face(first, tmp_path / "rm", dtype="float32")
    module = RewardModule(base_weights=str(tmp_path / "rm"), parallel=EXACT)
    model = create_model(module.shape, seed=9, draw=False)
    load_base_weights(model, tmp_path / "rm")
    assert torch.equal(model.lm_head.weight, first.lm_head.weight)


def test_calibration_by_hand():
    metric = Calibration(num_bins=2)
    metric.update(torch.tensor([0.6, 0.4, 0.9, 0.95]))  # half right at 0.6, all right at 0.925
    error = (2 * abs(0.5 - 0.6) + 2 * abs(1.0 - 0.925)) / 4
    assert metric.compute()["val/calibration_error"] == pytest.approx(error)
    sure = Calibration()
    sure.update(torch.tensor([1.0, 0.0]))
    assert sure.compute()["val/calibration_error"] == pytest.approx(0.5)
    assert Calibration().compute() == {}
