"""A whole GRPO step on a tiny model with the real engine: what is trained, what is not, and what affects it."""

import dataclasses
import logging
import math

import pytest
import torch

from nbg_lightning.core.create import create_model
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.modules.grpo import GRPOModule
from nbg_lightning.rewards.protocol import RewardResult
from nbg_lightning.rl.advantages import GroupNormalized, LeaveOneOut
from nbg_lightning.rl.policy_loss import PolicyLossConfig, with_moved_settings
from nbg_lightning.rl.rollout_batch import TrainedAnswer, pack_answers
from nbg_lightning.testing.grpo import GRPO_SHAPE, EvenReward, small_tokenizer, train_small_grpo

WHOLE = {"name": "grpo", "mask_truncated": False}  # a model with random weights hardly ever ends an answer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return small_tokenizer(tmp_path_factory.mktemp("small"))


@pytest.fixture
def train(tmp_path, tokenizer):
    def run(name="run", **options):
        return train_small_grpo(tmp_path / name, tokenizer=tokenizer, **options)

    return run


def same_weights(first, second, tolerance=0.0):
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], rtol=tolerance, atol=tolerance, msg=name)


# -- the loss ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shortest", [None, 1])
def test_losses_are_those_of_whole_logits(shortest):
    """Packed answers, shared prompts, gathered positions, temperature: against logits of each answer by itself."""
    module = GRPOModule(EvenReward(), GRPO_SHAPE, temperature=0.7, loss="grpo")
    module.model = create_model(GRPO_SHAPE, seed=1)
    with torch.no_grad():
        for parameter in module.model.parameters():
            parameter.mul_(3.0)
    answers = [
        TrainedAnswer((5, 9, 7), (11, 12), (-5.0, -6.0), 1.5),
        TrainedAnswer((8,), (4, 9, 40, 2), (-5.5, -5.0, -7.0, -4.0), -0.5),
        TrainedAnswer((5, 9, 7), (13,), (-5.0,), 0.3),
    ]
    batch = pack_answers(answers, shortest)
    assert batch.num_tokens == (11 if shortest is None else 8)
    assert module.count(batch) == {"policy": 3}
    loss = module.losses(batch)["policy"]
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in module.model.named_parameters()}
    module.model.zero_grad()
    expected = torch.zeros(())
    for answer in answers:
        ids = torch.tensor([*answer.prompt, *answer.completion])
        log_probs = (module.model(ids[None, :-1])[0] / 0.7).log_softmax(-1)
        own = log_probs.gather(1, ids[1:, None])[len(answer.prompt) - 1 :, 0]
        weights = (own.detach() - torch.tensor(answer.log_probs)).exp().clamp(max=2.0)
        expected = expected - ((own - own.detach()).exp() * weights * answer.advantage).mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in module.model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_micro_batch_without_answers_has_zero_loss_and_gradients():
    module = GRPOModule(EvenReward(), GRPO_SHAPE)
    module.model = create_model(GRPO_SHAPE)
    batch = pack_answers([])
    loss = module.losses(batch)["policy"]
    loss.backward()
    assert loss.item() == 0 and module.count(batch) == {"policy": 0}
    assert all(p.grad is not None and not p.grad.any() for p in module.model.parameters())


# -- a run -------------------------------------------------------------------------------------------------------------


def test_it_learns_and_says_how(train, tmp_path):
    reward = EvenReward()
    run = train(steps=25, reward=reward, module_options={"optimizer": dataclasses.replace(_adamw(), lr=1e-2)})
    means = run.column("reward/mean")
    assert sum(means[-5:]) / 5 > sum(means[:5]) / 5 + 0.2
    last = run.metrics[-1]
    wanted = {
        "reward": ["mean", "numbers"],
        "pass_rate": ["mean", "numbers"],
        "rollout": ["zero_variance", "truncated", "errors", "length", "longest", "trained", "tokens_per_second"],
        "policy": ["entropy", "clip_share", "mismatch_kl", "p99_ratio", "corrected_share"],
        "time": ["engine", "reward", "train", "sync"],
        "train": ["loss", "grad_norm", "lr"],
    }
    names = {f"{group}/{name}" for group, of_group in wanted.items() for name in of_group}
    assert names <= set(last)
    assert all(math.isfinite(last[name]) for name in names)
    assert max(run.column("policy/mismatch_kl")) < 1e-6 and max(run.column("policy/p99_ratio")) < 1.01
    assert run.column("policy/clip_share") == [0.0] * 25  # strictly on policy
    assert last["policy/entropy"] < run.metrics[0]["policy/entropy"] - 0.1
    assert (reward.entered, reward.left) == (1, 1)
    assert (tmp_path / "run" / "rollouts.jsonl").read_text().count("\n") >= 8  # `SampleTable` is there by default
    for rollout in run.rollouts[3]:
        assert [result.score for result in rollout.results] == [
            EvenReward.of(a.completion.ids) for a in rollout.answers
        ]
        assert sum(rollout.advantages) == pytest.approx(0.0, abs=1e-9)
        assert all(rollout.trained) and not rollout.zero_variance


def _adamw():
    from nbg_lightning.modules.optimizer import AdamWConfig

    return AdamWConfig(weight_decay=0.0)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "gspo", "cispo"])
def test_micro_batches_and_shared_prompts_change_nothing(train, loss):
    """One forward for each answer, one for everything with each prompt once, and groups that are cut."""
    # With a large eps AdamW's update is proportional to the gradient, and does not make signs of its rounding.
    options = {
        "loss": {"name": loss, "mask_truncated": False},
        "inner_updates": 2,
        "optimizer": dataclasses.replace(_adamw(), lr=1.0, eps=1.0),
    }
    runs = [
        train(
            f"{loss}-{tokens}",
            steps=2,
            module_options={**options, "micro_batch_tokens": tokens, "share_prefixes": share},
        )
        for tokens, share in ((1, False), (10_000, "auto"), (50, True))
    ]
    for other in runs[1:]:
        assert runs[0].scores == other.scores
        for name in ("train/grad_norm", "train/loss"):
            assert runs[0].column(name) == pytest.approx(other.column(name), rel=1e-3, abs=1e-8)
        same_weights(runs[0].weights, other.weights, 2e-6)


def test_resume_goes_on_with_the_same_answers(train, tmp_path):
    straight = train("straight", steps=4)
    train("broken", steps=4, max_steps=2)
    resumed = train("broken", steps=4, resume=tmp_path / "broken" / "checkpoints" / "step-00000002")
    assert resumed.scores == straight.scores[2:]
    assert resumed.column("train/grad_norm") == straight.column("train/grad_norm")[2:]
    same_weights(resumed.weights, straight.weights)


def test_answers_depend_on_the_seed_and_the_step(train):
    one_question = {"sources": {"numbers": _list(["same ?"])}, "prompts_per_step": 1, "min_questions": 1}
    still = {"optimizer": dataclasses.replace(_adamw(), lr=0.0)}
    run = train(data_options=one_question, module_options=still, steps=2)
    other = train("other", data_options=one_question, module_options={**still, "seed": 1}, steps=1)

    def ids(step):
        return [answer.completion.ids for rollout in step for answer in rollout.answers]

    assert len({*ids(run.rollouts[0]), *ids(run.rollouts[1])}) == 8
    assert ids(run.rollouts[0]) != ids(other.rollouts[0])


def _list(questions):
    from nbg_lightning.data import QuestionList

    return QuestionList([{"question": question, "answer": "1"} for question in questions])


def test_inner_updates_count_as_one_step_and_leave_the_policy(train):
    options = {
        "inner_updates": 3,
        "optimizer": dataclasses.replace(_adamw(), lr=3e-2),
        "loss": PolicyLossConfig("grpo", 0.01, 0.01, mask_truncated=False),
    }
    run = train(steps=2, module_options=options)
    assert len(run.metrics) == 2
    assert min(run.column("policy/clip_share")) > 0.05
    assert max(run.column("policy/mismatch_kl")) < 1e-6  # of the weights that drew the answers
    once = train("once", steps=1, module_options={**options, "inner_updates": 1})
    twice = train("twice", steps=1, module_options={**options, "inner_updates": 2})
    assert once.scores == twice.scores
    assert not torch.equal(once.weights["norm.weight"], twice.weights["norm.weight"])


class Constant(EvenReward):
    def score(self, groups):
        return [[RewardResult(0.5) for _ in group.answers] for group in groups]


@pytest.mark.parametrize(("choice", "trained"), [("keep", 1.0), ("drop", 0.0)])
def test_groups_without_variance_train_nothing(train, choice, trained, caplog):
    """A constant reward: no gradient, and the share of such groups is 1."""
    run = train(reward=Constant(), steps=1, module_options={"loss": {**WHOLE, "zero_variance": choice}})
    fresh = create_model(GRPO_SHAPE, seed=0)
    same_weights(run.weights, {name: p.detach() for name, p in fresh.named_parameters()})
    assert run.column("rollout/zero_variance") == [1.0]
    assert run.column("rollout/trained") == [trained]
    assert ("no token of the batch is trained" in caplog.text) == (choice == "drop")


def test_truncated_answers_are_masked_and_said(train, caplog):
    run = train(steps=1, module_options={"loss": {"name": "grpo"}, "max_new_tokens": 2})
    cut = [a.completion.finish_reason == "length" for r in run.rollouts[0] for a in r.answers]
    assert [t for r in run.rollouts[0] for t in r.trained] == [not c for c in cut]
    assert run.column("rollout/truncated") == [sum(cut) / len(cut)]
    assert ("were cut at max_new_tokens=2, and none is trained: raise it" in caplog.text) == all(cut)


def test_a_limit_below_the_gold_answers_is_said(train, caplog):
    sources = {"numbers": _list([f"{n}?" for n in range(8)])}
    sources["numbers"].items = [{**item, "answer": "a long answer of many tokens"} for item in sources["numbers"].items]
    train(steps=1, data_options={"sources": sources}, module_options={"max_new_tokens": 5})
    assert "max_new_tokens=5 is shorter than 4 of the first 4 gold answers" in caplog.text


# -- rewards that fail -------------------------------------------------------------------------------------------------


class Failing(EvenReward):
    """Errors for some answers, as a verifier that dies now and then."""

    def score(self, groups):
        results = super().score(groups)
        for row in results:
            row[0] = RewardResult(None, "error", "the verifier died")
        return results


def test_errors_are_masked_and_counted(train):
    run = train(reward=Failing(), steps=2)
    assert run.column("rollout/errors") == [0.25, 0.25]
    for rollout in run.rollouts[0]:
        assert rollout.advantages[0] == 0.0 and not rollout.trained[0]
        assert sum(rollout.advantages[1:]) == pytest.approx(0.0, abs=1e-9)
        assert rollout.results[0].score is None


class Broken(EvenReward):
    def __init__(self, how, first_step=0):
        super().__init__()
        self.how, self.calls = how, -first_step

    def score(self, groups):
        self.calls += 1
        results = super().score(groups)
        if self.calls <= 0:
            return results
        if self.how == "raises":
            raise KeyError("no such key")
        if self.how == "short":
            return [row[:-1] for row in results]
        if self.how == "few":
            return results[:-1]
        return [[RewardResult(math.nan) for _ in row] for row in results]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("raises", "reward 'even' failed: 'no such key'"),
        ("short", "reward 'even' failed: it gave 3 results for 4 answers"),
        ("few", "reward 'even' failed: it gave results for 0 groups, and there are 1"),
        ("nan", "reward 'even' gave the score nan"),
    ],
)
def test_a_step_without_any_score_stops_the_run_and_saves(train, tmp_path, how, why):
    reward = Broken(how, first_step=2)
    with pytest.raises(RuntimeError, match=f"no answer of step 2 has a score, the first because: error: {why}"):
        train(reward=reward, steps=4)
    assert (tmp_path / "run" / "checkpoints" / "step-00000002").is_dir()
    assert (reward.entered, reward.left) == (1, 1)
    straight = train("straight", steps=4)
    resumed = train(steps=4, resume="last")  # the reward works again
    assert resumed.scores == straight.scores[2:]
    same_weights(resumed.weights, straight.weights)


# -- engines that fail -------------------------------------------------------------------------------------------------


class Fragile(NativeEngine):
    """Dies in some calls, and remembers what it was asked."""

    def __init__(self, dies_in, how="raises"):
        super().__init__()
        self.dies_in, self.how = set(dies_in), how
        self.calls = self.entered = self.left = 0

    def __enter__(self):
        self.entered += 1
        return self

    def __exit__(self, *_):
        self.left += 1

    def generate(self, prompts, sampling, deadline=None):
        self.calls += 1
        if self.calls in self.dies_in:
            if self.how == "raises":
                raise OSError("the engine's process is gone")
            if self.how == "deadline":
                deadline = 1e-9
        found = super().generate(prompts, sampling, deadline)
        if self.calls in self.dies_in and self.how == "errors":
            return [
                [
                    dataclasses.replace(c, ids=(), log_probs=(), finish_reason="error", error="no answer")
                    for c in samples
                ]
                for samples in found
            ]
        return found


@pytest.mark.parametrize("how", ["raises", "errors"])
def test_an_engine_that_dies_is_started_again(train, caplog, how):
    engine = Fragile({2}, how)
    run = train(steps=3, module_options={"engine": engine})
    assert run.scores == train("straight", steps=3).scores
    assert (engine.entered, engine.left, engine.calls) == (2, 2, 4)
    assert "the engine died at step 1" in caplog.text


def test_an_engine_that_dies_twice_stops_the_run_and_saves(train, tmp_path):
    engine = Fragile({3, 4})
    with pytest.raises(
        RuntimeError, match="died twice at step 2: the engine's process is gone; the state before this step"
    ):
        train(steps=4, module_options={"engine": engine})
    assert (engine.entered, engine.left) == (2, 2)
    resumed = train(steps=4, resume=tmp_path / "run" / "checkpoints" / "step-00000002")
    assert resumed.scores == train("straight", steps=4).scores[2:]


def test_a_deadline_that_nothing_meets(train):
    with pytest.raises(RuntimeError, match="first because: timeout: the rollout deadline passed"):
        train(steps=2, module_options={"engine": Fragile({1}, "deadline")})


class Stale(NativeEngine):
    def sync(self, weights, version):
        """Forgets to take them."""


def test_stale_weights_are_refused(train):
    with pytest.raises(RuntimeError, match="answered with the weights of step 0 in step 1"):
        train(steps=2, module_options={"engine": Stale()})


# -- divergence from a reference, validation ---------------------------------------------------------------------------


def test_kl_from_the_reference(train, tmp_path):
    train("base", steps=1)
    base = str(tmp_path / "base" / "checkpoints" / "step-00000001")
    loss = {"name": "dapo", "mask_truncated": False, "kl_coefficient": 0.5}
    run = train("kl", steps=4, module_options={"core": None, "base_weights": base, "loss": loss})
    assert run.metrics[0]["train/kl"] == pytest.approx(0.0, abs=1e-9)
    assert run.metrics[-1]["train/kl"] > 1e-6
    last = run.metrics[-1]
    assert last["train/loss"] == pytest.approx(last["train/policy"] + 0.5 * last["train/kl"], rel=1e-5)
    assert not any("reference" in name for name in run.weights)


def test_validation_by_source(train):
    held_out = {"validation_sources": {"held_out": _list(["a ?", "b ?", "c ?"])}, "validation_prompts": 2}
    seen = []

    class Look(EvenReward):
        def score(self, groups):
            seen.append([group.question.source for group in groups])
            return super().score(groups)

    run = train(
        reward=Look(), steps=2, data_options=held_out, module_options={"validation_samples": 2, "ema_decay": 0.9},
        limit_val_batches=None, val_check_interval=1,
    )  # fmt: skip
    assert seen.count(["held_out", "held_out"]) == 2 and seen.count(["held_out"]) == 2
    assert 0 < run.metrics[-1]["val/reward/held_out"] < 1


# -- bad settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 1}, "group_size is invalid: 1; an answer is compared with its group"),
        ({"temperature": 0.0}, "temperature is invalid: 0.0; give a number above 0"),
        ({"inner_updates": 0}, "inner_updates is invalid: 0; give at least 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is invalid: 0; give at least 1"),
        ({"rollout_deadline": 0}, "rollouts.deadline is invalid: 0; give seconds above 0"),
        ({"share_prefixes": "always"}, "share_prefixes is invalid: 'always'; choose auto, true or false"),
        ({"loss": "ppo"}, "loss is invalid: 'ppo'"),
        ({"loss": {"name": "grpo", "zero_variance": "skip"}}, "zero_variance is invalid: 'skip'; choose keep or drop"),
        ({"loss": {"name": "grpo", "engine_correction": "clip"}}, "engine_correction is invalid: 'clip'"),
        ({"loss": {"name": "grpo", "kl_coefficient": 0.1}}, "kl_coefficient is invalid: 0.1; it needs"),
        ({"loss": {"name": "grpo", "kl_coefficient": -0.1}}, "kl_coefficient is invalid: -0.1; give at least 0"),
        ({"loss": {"name": "grpo", "kl_gradient": "k1"}}, "kl_gradient is invalid: k1"),
        ({"loss": {"name": "grpo", "reference": "some/folder"}}, "reference is invalid: it has no effect"),
    ],
)
def test_bad_settings_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        GRPOModule(EvenReward(), GRPO_SHAPE, **options)


# -- settings that stood elsewhere -------------------------------------------------------------------------------------


def test_settings_of_the_loss_are_read_beside_it_too(caplog):
    """Configs of earlier versions, and those that runs wrote down, have all of them there."""
    flat = {"loss": "dapo", "clip_low": None, "clip_high": 0.3, "zero_variance": "drop", "kl_gradient": "k3"}
    with caplog.at_level(logging.INFO, "nbg_lightning"):
        module = GRPOModule(EvenReward(), GRPO_SHAPE, **flat, seed=3)
    assert module.loss_config == PolicyLossConfig("dapo", None, 0.3, zero_variance="drop", kl_gradient="k3")
    assert (module.seed, module.shape) == (3, GRPO_SHAPE)
    assert "clip_low, clip_high, zero_variance, kl_gradient: read as part of loss" in caplog.text
    assert GRPOModule(EvenReward(), GRPO_SHAPE, mask_truncated=False).loss_config == PolicyLossConfig(**WHOLE)


def test_a_setting_in_two_places_is_refused():
    for loss in ({"name": "grpo", "clip_low": 0.1}, PolicyLossConfig("grpo")):
        with pytest.raises(ValueError, match="clip_low is given"):
            GRPOModule(EvenReward(), GRPO_SHAPE, loss=loss, clip_low=0.2)
    same = {"loss": {"name": "grpo"}, "group_size": 4}
    assert with_moved_settings(same) == same


def test_losses_leave_their_batch_as_it_is():
    module = GRPOModule(EvenReward(), GRPO_SHAPE)
    module.model = create_model(GRPO_SHAPE, seed=1)
    batch = pack_answers([TrainedAnswer((5, 9), (11, 12), (-5.0, -6.0), 1.5)])
    before = dataclasses.replace(batch)
    module.losses(batch)
    assert all(getattr(batch, f.name) is getattr(before, f.name) for f in dataclasses.fields(batch))
    assert batch.old_log_probs is None


@pytest.mark.parametrize("estimator", [LeaveOneOut(), GroupNormalized(scale=False)])
def test_advantages_are_a_choice(train, estimator):
    run = train(steps=1, module_options={"advantages": estimator})
    for rollout in run.rollouts[0]:
        scores = [result.score for result in rollout.results]
        mean = sum(scores) / len(scores)
        factor = len(scores) / (len(scores) - 1) if isinstance(estimator, LeaveOneOut) else 1.0
        assert list(rollout.advantages) == pytest.approx([factor * (score - mean) for score in scores])


def test_prompts_that_do_not_fit(train):
    with pytest.raises(ValueError, match=r"the longest prompt has [\d,]+ tokens, and the model's window is 256"):
        train(data_options={"sources": {"numbers": _list(["word " * 300] * 4)}})


def test_questions_are_needed(tmp_path):
    from nbg_lightning.testing import train_small

    with pytest.raises(ValueError, match="GRPOModule needs questions; use PromptDataModule"):
        train_small(tmp_path, module=GRPOModule(EvenReward(), GRPO_SHAPE))
