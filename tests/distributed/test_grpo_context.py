"""The policy loss with answers split over ranks by tokens: terms and gradients equal those of one rank."""

import dataclasses
import random

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh

from nbg_lightning.core.config import LanguageModelConfig
from nbg_lightning.core.context import ContextShard
from nbg_lightning.core.create import create_model
from nbg_lightning.rl.policy_loss import PolicyLossConfig, policy_terms, rollout_statistics
from nbg_lightning.rl.rollout_batch import TrainedAnswer, TrainedRow, pack_answers
from nbg_lightning.testing import run_ranks

SHAPE = LanguageModelConfig(61, 24, 48, 2, 4, 2, head_dim=8)
LOSSES = ("grpo", "dr_grpo", "dapo", "gspo", "cispo")
PACKINGS = {"each by itself": None, "shared prompts": 2}
LONGEST = 15


def answers():
    """Of three questions, of 1 to 15 tokens; one has an environment's words between, one a rewritten history."""
    chance = random.Random(3)

    def ids(number):
        return tuple(chance.randrange(61) for _ in range(number))

    def row(prompt, length):
        return prompt, ids(length), tuple(-1 - 3 * chance.random() for _ in range(length))

    prompts = [ids(1), ids(9), ids(5)]
    found = [
        TrainedAnswer(*row(prompt, length), advantage=chance.uniform(-2, 2))
        for prompt in prompts
        for length in (1, 7, LONGEST)
    ]
    found.append(TrainedAnswer(*row(prompts[1], 6), 0.7, drawn=(True, False, False, True, True, True)))
    found.append(TrainedAnswer(*row(prompts[2], 4), -0.4, further=(TrainedRow(*row(ids(8), 3)),)))
    return found


def terms_and_gradients(name, shortest, context=None):
    """The sums of the loss of an update after the first, with a divergence from a reference, and the gradients of all of it."""
    model = create_model(SHAPE, seed=1)
    batch = pack_answers(answers(), shortest, context)
    whole = pack_answers(answers(), shortest)
    others = torch.Generator().manual_seed(5)
    old, reference = (whole.engine_log_probs + torch.randn(whole.num_trained, generator=others) / 8 for _ in range(2))
    own = slice(None) if batch.own is None else batch.own
    batch = dataclasses.replace(batch, old_log_probs=old[own], reference_log_probs=reference[own])
    config = PolicyLossConfig(name, kl_coefficient=0.3)
    terms = policy_terms(rollout_statistics(model, batch, 0.8).log_probs, batch, config, LONGEST)
    sum(config.coefficients[term] * value for term, value in terms.sums.items()).backward()
    sums = torch.stack([value.detach() for value in terms.sums.values()])
    return batch, sums, terms.clipped, {name: parameter.grad for name, parameter in model.named_parameters()}


def on_four_ranks():
    mesh = init_device_mesh("cpu", (4,))
    found = {}
    for size in (2, 4):
        context = ContextShard(size, mesh)
        for name in LOSSES:
            for packing, shortest in PACKINGS.items():
                batch, sums, clipped, gradients = terms_and_gradients(name, shortest, context)
                for values in (sums, *gradients.values()):
                    context.add_up(values)
                own = dict(zip(batch.own.tolist(), clipped.tolist(), strict=True))
                found[size, name, packing] = batch.tokens.shape[1], context.gather(own), sums, gradients
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return run_ranks(on_four_ranks, 4, folder=tmp_path_factory.mktemp("context"))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [2, 4])
def test_terms_and_gradients_are_those_of_one_rank(ranks, size, name, packing):
    """Every rank has its part of the tokens, filled up to parts of one length, and every trained token is on one of them."""
    batch, sums, clipped, gradients = terms_and_gradients(name, PACKINGS[packing])
    for rank in ranks:
        length, own, found_sums, found = rank[size, name, packing]
        assert length == -(-batch.tokens.shape[1] // size)
        assert sum(map(len, own)) == batch.num_trained
        assert {place: value for part in own for place, value in part.items()} == dict(enumerate(clipped.tolist()))
        torch.testing.assert_close(found_sums, sums, rtol=1e-5, atol=0)
        for weight, gradient in gradients.items():
            largest = gradient.abs().max().item()
            torch.testing.assert_close(found[weight], gradient, rtol=1e-5, atol=1e-5 * largest, msg=weight)


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_answers_are_hard_enough(packing):
    """Rows are no multiple of the ranks, and some tokens are clipped, some not."""
    batch, sums, clipped, gradients = terms_and_gradients("grpo", PACKINGS[packing])
    assert batch.tokens.shape[1] % 4
    assert 0 < clipped.sum() < len(clipped)
    assert all(gradient.any() for gradient in gradients.values())
    assert sums.abs().min() > 0.1
