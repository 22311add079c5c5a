"""On-policy distillation on a tiny model with real engine and teachers: loss, dependencies of a run, and errors."""

import dataclasses
import logging
import math

import pytest
import torch

from nbg_lightning.core.create import create_model
from nbg_lightning.core.head_teachers import TopK
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data import Tokenizer, train_bpe
from nbg_lightning.data.question_sources import QuestionList
from nbg_lightning.losses.distillation import Divergence, top_k_divergence
from nbg_lightning.modules.opd import OPDModule
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.rewards.protocol import RewardResult
from nbg_lightning.rl.distillation import DistillationBatch
from nbg_lightning.rl.rollout_batch import TrainedAnswer, pack_answers
from nbg_lightning.teachers.live import LiveTeacher
from nbg_lightning.teachers.server import ServerTeacher
from nbg_lightning.testing.grpo import GRPO_SHAPE, EvenReward, small_tokenizer, train_small_grpo
from nbg_lightning.testing.served_lists import served_lists

ANSWERS = [
    TrainedAnswer((5, 9, 7), (11, 12), (-5.0, -6.0), 1.5),
    TrainedAnswer((8,), (4, 9, 40, 2), (-5.5, -5.0, -7.0, -4.0), -0.5),
    TrainedAnswer((5, 9, 7), (13,), (-5.0,), 0.3),
]
MEASURES = [Divergence("reverse_kl"), Divergence("jensen_shannon", 1.0, 0.3), Divergence("forward_kl", 1.7)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tokenizer, and two teachers of other sizes and weights."""
    folder = tmp_path_factory.mktemp("opd")
    tokenizer = Tokenizer(small_tokenizer(folder))
    for seed, name in enumerate(("teacher", "other"), start=11):
        shape = dataclasses.replace(GRPO_SHAPE, hidden_size=48, intermediate_size=64)
        model = create_model(shape, seed=seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2.0)
        save_hugging_face(model, folder / name, tokenizer, "float32", verify=False)
    return folder


@pytest.fixture
def train(tmp_path, root):
    def run(name="run", steps=3, **options):
        own = {"teacher": str(root / "teacher"), "reward": None, **options.pop("module_options", {})}
        return train_small_grpo(
            tmp_path / name,
            tokenizer=root / "tokenizer",
            module=OPDModule,
            steps=steps,
            module_options=own,
            **options,
        )

    return run


def same_weights(first, second, tolerance=0.0):
    assert first.keys() == second.keys()
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], rtol=tolerance, atol=tolerance, msg=name)


# -- the loss ----------------------------------------------------------------------------------------------------------


def plain_divergence(log_p, log_q, measure):
    """The definitions, over the whole vocabulary."""
    if measure.kind == "forward_kl":
        return (log_q.exp() * (log_q - log_p)).sum(-1)
    if measure.kind == "reverse_kl":
        return (log_p.exp() * (log_p - log_q)).sum(-1)
    b = measure.mixture
    log_m = (b * log_q.exp() + (1 - b) * log_p.exp()).log()
    return b * (log_q.exp() * (log_q - log_m)).sum(-1) + (1 - b) * (log_p.exp() * (log_p - log_m)).sum(-1)


@pytest.mark.parametrize("shortest", [None, 1])
@pytest.mark.parametrize("w_policy", [0.0, 0.4])
@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.kind)
def test_values_and_gradients_are_those_of_whole_logits_in_float64(root, measure, w_policy, shortest):
    """Packed answers, shared prompts, both terms in one pass: against logits of each answer by itself."""
    module = OPDModule(
        str(root / "teacher"),
        GRPO_SHAPE,
        reward=EvenReward(),
        w_distill=0.7,
        w_policy=w_policy,
        divergence=measure,
        temperature=0.8,
    )
    module.model = create_model(GRPO_SHAPE, seed=1).double()
    teacher = LiveTeacher(root / "teacher")
    teacher.model.double()
    module.teachers._live[0] = teacher
    batch = DistillationBatch.of(pack_answers(ANSWERS, shortest), 0)
    counts = module.count(batch)
    assert counts == {"distillation": 7.0} | ({"policy": 3.0} if w_policy else {})
    module.manual_backward = torch.Tensor.backward
    sums = module.backward_micro_batch(batch, {k: module.coefficients[k] / n for k, n in counts.items()})
    gradients = {name: p.grad.clone() for name, p in module.model.named_parameters()}
    module.model.zero_grad()
    distilled, policy = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for answer in ANSWERS:
        ids = torch.tensor([*answer.prompt, *answer.completion])
        logits, targets = module.model(ids[None, :-1])[0], teacher.model(ids[None, :-1])[0].detach()
        mine = slice(len(answer.prompt) - 1, None)
        log_p, log_q = ((z[mine] / measure.temperature).log_softmax(-1) for z in (logits, targets))
        distilled = distilled + plain_divergence(log_p, log_q, measure).sum()
        own = (logits / 0.8).log_softmax(-1).gather(1, ids[1:, None])[mine, 0]
        weights = (own.detach() - torch.tensor(answer.log_probs)).exp().clamp(max=2.0)
        policy = policy - ((own - own.detach()).exp() * weights * answer.advantage).mean()
    (0.7 * distilled / 7 + w_policy * policy / 3).backward()
    assert sums["distillation"].item() == pytest.approx(distilled.item(), rel=1e-9)
    expected = [policy.item()] * bool(w_policy)
    assert [value.item() for name, value in sums.items() if name == "policy"] == pytest.approx(expected, rel=1e-6)
    for name, parameter in module.model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize("measure", MEASURES[:2], ids=lambda m: m.kind)
def test_listed_ids_are_compared_with_the_mass_of_the_rest(root, measure):
    module = OPDModule(str(root / "teacher"), GRPO_SHAPE, divergence=measure)
    module.model = create_model(GRPO_SHAPE, seed=1).double()
    generator = torch.Generator().manual_seed(3)
    log_q = torch.randn(7, GRPO_SHAPE.vocab_size, generator=generator, dtype=torch.float64).log_softmax(-1)
    top, ids = log_q.topk(5)
    tail = torch.log1p(-top.exp().sum(-1))
    batch = DistillationBatch.of(pack_answers(ANSWERS), 0, TopK(ids, top, tail))
    found = module.losses(batch)["distillation"]
    hidden = []
    for answer in ANSWERS:
        ids_of = torch.tensor([*answer.prompt, *answer.completion])
        hidden.append(module.model(ids_of[None, :-1])[0][len(answer.prompt) - 1 :])
    log_p = torch.cat(hidden).log_softmax(-1)
    expected = top_k_divergence(log_p, ids, top, tail, measure.kind, measure.mixture).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("w_policy", [0.0, 1.0])
def test_a_micro_batch_without_answers_changes_nothing(root, w_policy):
    module = OPDModule(str(root / "teacher"), GRPO_SHAPE, reward=EvenReward(), w_policy=w_policy)
    module.model = create_model(GRPO_SHAPE)
    module.teachers._live[0] = LiveTeacher(root / "teacher")
    module.manual_backward = torch.Tensor.backward
    sums = module.backward_micro_batch(DistillationBatch.of(pack_answers([]), 0), {"distillation": 1.0, "policy": 1.0})
    assert all(value.item() == 0 for value in sums.values())
    assert all(p.grad is not None and not p.grad.any() for p in module.model.parameters())


# -- a run -------------------------------------------------------------------------------------------------------------


def test_the_student_comes_to_its_teacher_and_says_how(train, root):
    options = {"validation_fraction": 0.25}
    run = train(
        steps=25,
        data_options=options,
        limit_val_batches=1,
        val_check_interval=24,
        module_options={"optimizer": AdamWConfig(lr=1e-2, weight_decay=0.0), "max_new_tokens": 8},
    )
    divergence = run.column("train/loss")
    assert divergence[-1] < 0.7 * divergence[0]
    last = run.metrics[-1]
    assert 0 < last["val/distillation"] < 0.8 * divergence[0]
    assert {"train/loss", "train/grad_norm", "rollout/length", "rollout/trained", "time/engine"} <= set(last)
    assert not {name for name in last if name.startswith(("reward/", "pass_rate/", "policy/"))}, "nothing was scored"
    assert not {"rollout/errors", "rollout/zero_variance"} & set(last)
    assert all(all(rollout.trained) for step in run.rollouts for rollout in step)


def test_a_reward_is_reported_and_trained_only_with_its_weight(train):
    """Both see the same first answers; the policy term moves the weights elsewhere."""
    runs = [
        train(f"w{weight}", steps=2, module_options={"w_policy": weight, "reward": EvenReward()})
        for weight in (0.0, 1.0)
    ]
    assert runs[0].scores[0] == runs[1].scores[0]
    assert all("reward/mean" in run.metrics[0] for run in runs)
    assert "policy/entropy" not in runs[0].metrics[0] and "policy/entropy" in runs[1].metrics[0]
    assert runs[1].metrics[0]["train/distillation"] == pytest.approx(runs[0].metrics[0]["train/loss"], rel=1e-6)
    assert any(not torch.equal(weight, runs[1].weights[name]) for name, weight in runs[0].weights.items())


class Unsure(EvenReward):
    """It has no score for most answers."""

    def score(self, groups):
        found = super().score(groups)
        return [[row[0], *[RewardResult(None, "error", "no verdict")] * (len(row) - 1)] for row in found]


def test_answers_without_a_score_are_distilled_all_the_same(train):
    run = train(steps=1, module_options={"w_policy": 1.0, "reward": Unsure()})
    assert run.metrics[0]["rollout/trained"] == 1.0 and run.metrics[0]["rollout/errors"] == 0.75
    assert all(not any(rollout.advantages) for rollout in run.rollouts[0])


def test_micro_batches_and_shared_prompts_change_nothing(train):
    smooth = AdamWConfig(lr=1.0, eps=1.0, weight_decay=0.0)
    options = {"optimizer": smooth, "w_policy": 0.5, "reward": EvenReward(), "inner_updates": 2}
    runs = [
        train(str(tokens), steps=2, module_options={**options, "micro_batch_tokens": tokens, "share_prefixes": share})
        for tokens, share in ((1, False), (10_000, "auto"), (50, True))
    ]
    for other in runs[1:]:
        assert runs[0].scores == other.scores
        assert runs[0].column("train/distillation") == pytest.approx(other.column("train/distillation"), rel=1e-4)
        same_weights(runs[0].weights, other.weights, 2e-6)


def test_resume_is_exact(train, tmp_path):
    straight = train("straight", steps=4, checkpoint_every=2)
    again = train("again", steps=4, resume=tmp_path / "straight/checkpoints/step-00000002")
    assert again.metrics[-1]["train/loss"] == straight.metrics[-1]["train/loss"]
    same_weights(straight.weights, again.weights)


def test_a_resumed_run_must_have_its_teacher(train, tmp_path, root):
    train("first", steps=2, checkpoint_every=2)
    weights = (root / "other" / "model.safetensors").read_bytes()
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    for file in (root / "teacher").iterdir():
        (swapped / file.name).write_bytes(file.read_bytes())
    same_name = {"teacher": str(swapped)}
    train("second", steps=2, checkpoint_every=2, module_options=same_name)
    (swapped / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"the teacher .*swapped in float32 of the checkpoint's run had other weights"):
        train("third", steps=3, resume=tmp_path / "second/checkpoints/step-00000002", module_options=same_name)


# -- several teachers, and what they said kept ---------------------------------------------------------------------------


def two_sources():
    rows = [{"question": f"{number} ?", "answer": str(number)} for number in range(12)]
    return {
        "sources": {
            "numbers": QuestionList(rows),
            "words": QuestionList([{**r, "question": f"say {r['answer']}"} for r in rows]),
        }
    }


def test_each_domain_has_its_teacher(train, root):
    """One teacher named twice is that teacher; two differ from it; a source without one is refused before a step."""
    teacher, other = str(root / "teacher"), str(root / "other")
    named = {
        "one": teacher,
        "twice": {"numbers": teacher, "words": teacher},
        "two": {"numbers": teacher, "default": other},
        "order": {"default": other, "numbers": teacher},
    }
    runs = {
        name: train(name, steps=2, data_options=two_sources(), module_options={"teacher": given})
        for name, given in named.items()
    }
    same_weights(runs["one"].weights, runs["twice"].weights)
    same_weights(runs["two"].weights, runs["order"].weights, 1e-5)
    assert runs["two"].column("train/loss") != runs["one"].column("train/loss")
    with pytest.raises(
        ValueError, match=r"teacher is invalid: it has none for the source 'words'; add one, or default"
    ):
        train("none", data_options=two_sources(), module_options={"teacher": {"numbers": teacher}})


def test_what_a_teacher_said_is_kept_by_request(train, root, tmp_path, monkeypatch):
    """A run that is repeated asks for nothing, needs no weights, and has the first one's gradients to the last bit."""
    kept = {"cache": str(tmp_path / "kept"), "top_k": 20}
    first = train("first", module_options=kept)
    monkeypatch.setattr(LiveTeacher, "__init__", lambda *_: pytest.fail("the weights were read"))
    second = train("second", module_options=kept)
    assert first.column("train/loss") == second.column("train/loss")
    same_weights(first.weights, second.weights)


def test_all_ids_listed_are_the_whole_distribution(train, tmp_path):
    whole = train("whole", steps=2)
    listed = train("listed", steps=2, module_options={"cache": str(tmp_path / "kept"), "top_k": 1000})
    assert listed.column("train/loss") == pytest.approx(whole.column("train/loss"), rel=2e-3)  # half precision


def test_a_record_that_is_damaged_is_asked_for_again(train, tmp_path, caplog):
    kept = {"cache": str(tmp_path / "kept"), "top_k": 20}
    first = train("first", steps=1, module_options=kept)
    (file,) = (tmp_path / "kept").glob("requests-*/rank-0/targets.bin")
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    caplog.set_level(logging.WARNING, logger="nbg_lightning")
    second = train("second", steps=1, module_options=kept)
    assert "is damaged at byte 0: the teacher is asked again" in caplog.text
    same_weights(first.weights, second.weights)


# -- what cannot work --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"w_distill": 0}, "w_distill is invalid: 0; give it a weight, or train with GRPOModule"),
        ({"w_distill": -1.0}, "w_distill is invalid: -1.0; give a finite number of at least 0"),
        ({"w_policy": math.inf}, "w_policy is invalid: inf; give a finite number of at least 0"),
        ({"w_policy": math.nan}, "w_policy is invalid: nan; give a finite number of at least 0"),
        ({"w_policy": 1.0}, "w_policy is invalid: 1.0; it needs scores: set reward"),
        ({"top_k": 0}, "top_k is invalid: 0; give at least 1"),
        ({"teacher": {}}, "teacher is invalid: {}; name a teacher"),
        ({"divergence": "euclid"}, "divergence is invalid: euclid"),
        (
            {"teacher": "http://127.0.0.1:9/v1", "divergence": Divergence(temperature=2.0)},
            "divergence.temperature is invalid: 2.0; a server gives the tail's mass at temperature 1 only",
        ),
        (
            {"loss": {"name": "grpo", "kl_coefficient": 0.1, "reference": "there"}},
            "loss.kl_coefficient is invalid: it has no effect without w_policy",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(root, options, message):
    with pytest.raises(ValueError, match=message.replace("{}", r"\{\}")):
        OPDModule(**{"teacher": str(root / "teacher"), "core": GRPO_SHAPE, **options})


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A teacher whose tokenizer cuts the student's texts elsewhere, and its tokenizer."""
    folder = tmp_path_factory.mktemp("foreign")
    words = ["quite other words about nothing at all, and what is the answer?"] * 3
    tokenizer = Tokenizer(train_bpe(words, 290, folder / "tokenizer"))
    save_hugging_face(create_model(GRPO_SHAPE, seed=3), folder / "model", tokenizer, "float32", verify=False)
    return folder


def test_a_teacher_of_another_tokenizer_is_learnt_from_over_chunks(train, foreign, tmp_path):
    """Its probabilities for the student's answers in its own tokens: live, and as lists from a cache."""
    teacher = {"teacher": str(foreign / "model")}
    run = train(module_options=teacher)
    found = run.column("train/loss")
    assert all(math.isfinite(loss) and loss > 0 for loss in found)
    assert all(step["train/grad_norm"] > 0 for step in run.metrics)
    kept = {**teacher, "cache": str(tmp_path / "kept"), "top_k": 1000}  # all ids
    listed = train("listed", module_options=kept)
    assert listed.column("train/loss") == pytest.approx(found, rel=5e-3)  # half precision
    again = train("again", module_options=kept)
    assert again.column("train/loss") == listed.column("train/loss")
    few = train("few", steps=1, module_options={**kept, "top_k": 4})
    assert 0 < few.column("train/loss")[0] < found[0]


def test_a_server_of_another_tokenizer_is_learnt_from_over_chunks(train, foreign, root):
    """The server is one of vLLM's form over the same weights; a tokenizer that is not the server's is refused."""
    weights = train(module_options={"teacher": str(foreign / "model")})
    with served_lists(foreign / "model") as url:
        teacher = ServerTeacher(url, tokenizer=str(foreign / "model"))
        listed = train("served", module_options={"teacher": teacher, "top_k": GRPO_SHAPE.vocab_size})
        assert listed.column("train/loss") == pytest.approx(weights.column("train/loss"), rel=1e-3)
        for wrong in (ServerTeacher(url), ServerTeacher(url, tokenizer=str(root / "tokenizer"))):
            with pytest.raises(ValueError, match=r"has another tokenizer than the data \(\d+ of \d+ ids differ"):
                train("wrong", module_options={"teacher": wrong})
