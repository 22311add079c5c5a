"""DPDModule on small models: naive references, independence of micro-batches, sources of its targets, and errors."""

import dataclasses
import logging

import numpy as np
import pytest
import torch

from nbg_lightning.core.batch import IGNORE
from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.head_distillation import linear_top_k
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data.pair_batch import Targets, pair_row, stack_pairs
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.losses.distillation import divergence
from nbg_lightning.losses.preference import preference_loss
from nbg_lightning.modules.dpd import PAIR_TERMS, TOKEN_TERMS, DPDModule
from nbg_lightning.modules.preference_scores import PreferenceScores
from nbg_lightning.teachers.cache_format import CacheIdentity
from nbg_lightning.teachers.live import LiveTeacher
from nbg_lightning.testing import SMALL_SHAPE, random_pairs

LARGER = dataclasses.replace(SMALL_SHAPE, hidden_size=48, num_hidden_layers=3, tie_word_embeddings=True)
EXACT = ParallelConfig(compute_dtype="float32")
LENGTH = 40


PAIRS = random_pairs(7)


def batch_of(pairs=PAIRS, cached=None):
    """One pair a row, in one empty row more."""
    rows = [pair_row([pair], LENGTH, *(cached[index] if cached else ())) for index, pair in enumerate(pairs)]
    rows += [] if cached else [pair_row([], LENGTH)]
    return stack_pairs(rows, np.zeros(len(rows)), np.zeros(len(rows)))


def write(folder, shape, seed, scale=5.0):
    """Weights that differ enough to matter: two draws of std 0.02 hardly do."""
    model = create_model(shape, seed=seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.0 if "norm" in name else scale)
    save_hugging_face(model, folder, dtype="float32", verify=False)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name, shape, seed in (("student", SMALL_SHAPE, 1), ("reference", SMALL_SHAPE, 2), ("teacher", LARGER, 3)):
        write(folder / name, shape, seed)
    return folder


@pytest.fixture
def make(folder):
    def make(**options):
        module = DPDModule(base_weights=str(folder / "student"), parallel=EXACT, **options)
        module.model = LiveTeacher(folder / "student", EXACT).model.requires_grad_()
        terms = ()
        if options.get("w_dpo", 1.0):
            module.reference = LiveTeacher(folder / "reference", EXACT)
            terms += PAIR_TERMS
        if options.get("w_pos", 1.0) or options.get("w_neg", 1.0):
            module.teacher = LiveTeacher(folder / "teacher", EXACT)
            terms += TOKEN_TERMS
        module.terms = terms
        return module

    return make


def step(module, micro_batches):
    """What `training_step` does to the gradients, without a trainer."""
    module.manual_backward = lambda loss: loss.backward()
    module.model.zero_grad()
    counts: dict = {}
    for micro in micro_batches:
        for name, value in module.count(micro).items():
            counts[name] = counts.get(name, 0.0) + value
    sums = module._backward(micro_batches, counts)
    means = {name: float(sums[name]) / counts[name] for name in counts}
    return means, {name: p.grad.clone() for name, p in module.model.named_parameters()}


def naive(module):
    """The definition: every sequence by itself, full logits, one mean a term."""
    token_values, ratios = ([], []), ([], [])
    for pair in PAIRS:
        for side, (ids, mask) in enumerate(pair.sides):
            ids = torch.from_numpy(ids)[None]
            trained = torch.from_numpy(mask)[1:]
            log_p, log_ref, log_q = (
                None if model is None else model(ids)[0, :-1][trained].log_softmax(-1)
                for model in (module.model, *(f and f.model for f in (module.reference, module.teacher)))
            )
            labels = ids[0, 1:][trained][:, None]
            if log_ref is not None:
                ratios[side].append((log_p - log_ref.detach()).gather(-1, labels).sum())
            if log_q is not None:
                token_values[side].append(
                    divergence(log_p, log_q.detach(), module.measure.kind, module.measure.mixture)
                )
    terms = {}
    if ratios[0]:
        chosen, rejected = (torch.stack(values) for values in ratios)
        terms["dpo"] = preference_loss(chosen, rejected, module.preference).mean()
        terms["margin"] = module.preference.beta * (chosen - rejected).mean()
        terms["accuracy"] = (chosen > rejected).float().mean()
        terms["chosen_shift"], terms["rejected_shift"] = chosen.mean(), rejected.mean()
    if token_values[0]:
        terms["pos"], terms["neg"] = (torch.cat(values).mean() for values in token_values)
    return terms


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"w_dpo": 0.0},
        {"w_dpo": 0.0, "w_pos": 0.0, "w_neg": 2.0, "divergence": "jensen_shannon", "mixture": 0.3},
        {"w_pos": 0.0, "w_neg": 0.0, "preference": "hinge", "beta": 0.5},
        {"w_dpo": 0.5, "w_pos": 0.3, "w_neg": 0.7, "divergence": "reverse_kl", "preference": "ipo"},
    ],
    ids=["joint", "token_only", "neg_only", "dpo_only", "weighted"],
)
def test_step_is_the_naive_one_for_any_cut(make, options):
    module = make(**options)
    expected = naive(module)
    total = sum(module.coefficients[name] * value for name, value in expected.items() if name in ("dpo", "pos", "neg"))
    module.model.zero_grad()
    total.backward()
    gradients = {name: p.grad.clone() for name, p in module.model.named_parameters()}
    for rows, shortest in ((1, None), (3, None), (8, None), (8, 1), (3, 2)):
        micro_batches = [micro.with_shared_prefixes(shortest) for micro in batch_of().split(rows * LENGTH)]
        means, found = step(module, micro_batches)
        assert set(means) == set(expected)
        assert means == pytest.approx({name: value.item() for name, value in expected.items()}, rel=2e-4, abs=1e-6)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, gradients[name], rtol=2e-3, atol=1e-5 * gradients[name].abs().max())
    losses = module.losses(batch_of().split(1000)[0])
    assert losses.keys() == expected.keys() and not any(value.requires_grad for value in losses.values())


def cached_rows(module, k):
    """What a cache would hold of `PAIRS`, computed sequence by sequence."""
    rows = []
    for pair in PAIRS:
        references, targets = [], []
        for ids, mask in pair.sides:
            ids, trained = torch.from_numpy(ids)[None], torch.from_numpy(mask)[1:]
            with torch.no_grad():
                log_ref = module.reference.model(ids)[0, :-1][trained].log_softmax(-1)
                top = linear_top_k(
                    *module.teacher.model(ids, head=lambda h, w, trained=trained: (h[0, :-1][trained], w)), k
                )
            references.append(log_ref.gather(-1, ids[0, 1:][trained][:, None]).squeeze(-1).numpy())
            targets.append(Targets(top.ids.numpy().astype(np.int32), top.log_probs.numpy(), top.tail.numpy()))
        rows.append((references, targets, k))
    return rows


def test_cached_numbers_take_the_place_of_live_models(make):
    """With all ids listed the cache is the live teacher; and with fewer no model runs either."""
    module = make()
    live, gradients = step(module, batch_of().split(2 * LENGTH))
    rows = cached_rows(module, 61)
    module.reference = module.teacher = None
    for listed in (61, 8):
        if listed < 61:
            rows = [
                (
                    references,
                    [
                        Targets(t.ids[:, :8], t.log_probs[:, :8], np.logaddexp.reduce(t.log_probs[:, 8:], axis=1))
                        for t in targets
                    ],
                    8,
                )
                for references, targets, _ in rows
            ]
        means, found = step(module, batch_of(cached=rows).split(2 * LENGTH))
        shared = [micro.with_shared_prefixes(1) for micro in batch_of(cached=rows).split(2 * LENGTH)]
        assert step(module, shared)[0] == pytest.approx(means, rel=1e-5, abs=1e-6)
        if listed == 61:
            assert means == pytest.approx(live, rel=1e-4, abs=1e-6)
            for name, gradient in found.items():
                torch.testing.assert_close(gradient, gradients[name], rtol=1e-3, atol=1e-6)
        else:
            assert means["dpo"] == pytest.approx(live["dpo"], rel=1e-5)
            assert 0 < means["pos"] < live["pos"] and 0 < means["neg"] < live["neg"]  # a lower bound


def test_shared_prompts_stand_once_and_padding_nowhere():
    (whole,) = batch_of().split(1000)
    shared = whole.with_shared_prefixes(1)
    positions = sum(pair.num_positions for pair in PAIRS)
    prompts = sum(int((~pair.chosen_mask).sum()) for pair in PAIRS)
    assert whole.num_tokens == 8 * LENGTH
    assert shared.num_tokens <= positions - prompts
    tokens, places = whole.tokens.flatten(), torch.arange(8 * LENGTH)
    present = whole.sequence.flatten() >= 0
    assert torch.equal(shared.input.tokens[0][shared.places(places)][present], tokens[present])
    assert torch.equal(shared.input.positions[0][shared.places(places)][present], whole.positions.flatten()[present])
    for alike in (whole.with_shared_prefixes(None), whole.with_shared_prefixes(100)):
        assert alike is whole


def test_prefixes_are_shared_in_micro_batches_by_the_setting(make):
    """Prompts of fewer than 16 tokens are shared only where that is asked for."""
    batch = batch_of(random_pairs(3))
    counts = {}
    for setting in ("auto", True, False):
        module = make(share_prefixes=setting, micro_batch_tokens=2 * LENGTH)
        counts[setting] = [micro.num_tokens for micro in module.on_before_batch_transfer(batch, 0)]
    assert counts["auto"] == counts[False] == [2 * LENGTH, 2 * LENGTH]
    assert counts[True][0] < LENGTH


@pytest.mark.parametrize("setting", ["on", 1, None])
def test_sharing_settings_that_there_are_not(setting, folder):
    with pytest.raises(ValueError, match=r"share_prefixes is invalid: .*; choose auto, true or false"):
        DPDModule(base_weights=str(folder / "student"), share_prefixes=setting)


def test_each_term_has_its_own_denominator(make):
    batch = batch_of()
    counts = make().count(batch)
    trained = [[int(mask[1:].sum()) for _, mask in pair.sides] for pair in PAIRS]
    assert counts["dpo"] == counts["margin"] == len(PAIRS)
    assert counts["pos"] == sum(chosen for chosen, _ in trained)
    assert counts["neg"] == sum(rejected for _, rejected in trained)


def test_nothing_of_padding_is_trained(make):
    """A rank may get a micro-batch without a pair: every term is 0 there, and so is every gradient."""
    module = make()
    empty = batch_of(PAIRS[:0])
    scores = module.scores(empty.split(1000)[0], {"dpo": 1.0, "pos": 1.0, "neg": 1.0})
    module.model.zero_grad()
    scores.loss.backward()
    assert scores.loss.item() == 0 and not any(len(values) for values in scores.values.values())
    assert all(p.grad is not None and not p.grad.any() for p in module.model.parameters())


def test_frozen_models_are_outside_the_module_and_untouched(make):
    module = make()
    before = {name: p.clone() for name, p in module.teacher.model.named_parameters()}
    step(module, batch_of().split(1000))
    assert all(name.startswith("model.") for name, _ in module.named_parameters())
    assert not any(p.requires_grad or p.grad is not None for p in module.reference.model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in module.teacher.model.named_parameters())


def test_nan_teacher_and_reference_are_errors(make):
    module = make()
    with torch.no_grad():
        next(module.teacher.model.parameters()).fill_(float("nan"))
    with pytest.raises(RuntimeError, match=r"the teacher .* gives NaN or infinite hidden states") as caught:
        module.scores(batch_of().split(1000)[0], {})
    assert "\n" not in str(caught.value)
    module = make(w_pos=0.0, w_neg=0.0)
    with torch.no_grad():
        next(module.reference.model.parameters()).fill_(float("nan"))
    with pytest.raises(RuntimeError, match=r"the reference .* gives non-finite log-probabilities"):
        module.scores(batch_of().split(1000)[0], {})


# -- settings and setup ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"w_neg": -1.0}, "w_neg is invalid: -1.0; give a finite number of at least 0"),
        ({"w_dpo": 0, "w_pos": 0, "w_neg": 0}, "w_dpo is invalid: 0"),
        ({"w_pos": 0, "w_neg": 0, "teacher": "t"}, "teacher is invalid"),
        ({"beta": 0.0}, "beta is invalid: 0.0"),
        ({"divergence": "kl"}, "divergence is invalid: kl"),
        ({"temperature": -1.0}, "temperature of the divergence is invalid: -1.0"),
    ],
)
def test_settings_that_cannot_work(options, message):
    with pytest.raises(ValueError, match=message):
        DPDModule(SMALL_SHAPE, **options)


class Cache:
    """What a module asks of a cache."""

    def __init__(self, **changes):
        defaults = dict(
            teacher="t", reference="r", tokenizer="x", template="y", data="d", k=2, temperature=1.0, vocab_size=61
        )
        self.identity = CacheIdentity(**{**defaults, **changes})
        self.folder = "the-cache"
        self.teacher_tokenizer = None  # the student's

    def check(self, **expected):
        if other := self.identity.differences(**expected):
            raise ValueError(f"the cache is of something else: {'; '.join(other)}")


def set_up(module, tokenizer=None, cache=None):
    class Data:
        vocab_size = None
        teacher_cache = cache

    class Trainer:
        datamodule = Data()
        is_global_zero = True

    Data.tokenizer = tokenizer
    module._trainer = Trainer()
    module.setup("fit")
    return module


def test_what_is_missing_is_named(folder):
    with pytest.raises(ValueError, match="w_pos and w_neg need a teacher; set teacher"):
        set_up(DPDModule(base_weights=str(folder / "student")))
    with pytest.raises(ValueError, match="there is no reference for the preference loss; set base_weights"):
        set_up(DPDModule(SMALL_SHAPE, w_pos=0, w_neg=0))
    with pytest.raises(ValueError, match="no reference"):  # the cache has none
        set_up(DPDModule(SMALL_SHAPE), cache=Cache(reference=None))


def test_where_the_numbers_come_from(folder, caplog):
    base = {"base_weights": str(folder / "student")}
    module = set_up(DPDModule(**base, teacher=str(folder / "teacher")))
    assert module._live == (True, True) and module.terms == PAIR_TERMS + TOKEN_TERMS
    module = set_up(DPDModule(**base, w_pos=0, w_neg=0))
    assert module._live == (False, True) and module.terms == PAIR_TERMS
    with caplog.at_level(logging.INFO, "nbg_lightning"):
        module = set_up(DPDModule(**base, w_dpo=0, teacher=str(folder / "teacher")))
    assert module._live == (True, False) and module.terms == TOKEN_TERMS
    assert "there will be no margin, accuracy or shifts" in caplog.text
    assert set_up(DPDModule(SMALL_SHAPE), cache=Cache())._live == (False, False)
    module = set_up(DPDModule(**base), cache=Cache(reference=None))
    assert module._live == (False, True) and module.terms == PAIR_TERMS + TOKEN_TERMS


def test_cache_of_something_else_is_refused(folder):
    for changes, message in (
        ({"temperature": 2.0}, "temperature 2.0 there, 1.0 here"),
        ({"vocab_size": 62}, "a teacher with 62 ids, and the model has 61"),
    ):
        with pytest.raises(ValueError, match=message):
            set_up(DPDModule(SMALL_SHAPE), cache=Cache(**changes))
    with pytest.raises(ValueError, match=r"reference r there, [0-9a-f]{16} here"):
        set_up(DPDModule(base_weights=str(folder / "student")), cache=Cache())
    with pytest.raises(ValueError, match=r"teacher t there, [0-9a-f]{16} here"):
        set_up(DPDModule(SMALL_SHAPE, teacher=str(folder / "teacher")), cache=Cache())


def test_teacher_with_another_vocabulary(folder, tmp_path, caplog):
    """The common range only if tokenizers agree; else only the sequence term, said loudly."""
    tokenizers = [Tokenizer(train_bpe([text] * 3, 272, tmp_path / text[:3])) for text in ("one and one", "two of them")]
    student = dataclasses.replace(SMALL_SHAPE, vocab_size=280)
    write(tmp_path / "student", student, 1)
    for name, vocab_size, tokenizer in (
        ("padded", 300, tokenizers[0]),
        ("other", 280, tokenizers[1]),
        ("bare", 300, None),
    ):
        model = create_model(dataclasses.replace(LARGER, vocab_size=vocab_size), seed=3)
        save_hugging_face(model, tmp_path / name, tokenizer, "float32", verify=False)
    base = {"base_weights": str(tmp_path / "student"), "parallel": EXACT}

    def module(teacher, **options):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "nbg_lightning"):
            return set_up(DPDModule(**base, teacher=str(tmp_path / teacher), **options), tokenizers[0])

    padded = module("padded")
    assert padded.terms == PAIR_TERMS + TOKEN_TERMS
    assert (
        "the teacher has 300 ids, the student 280, and one tokenizer: they are compared over the first 280"
        in caplog.text
    )
    padded.model = LiveTeacher(tmp_path / "student", EXACT).model.requires_grad_()
    padded.reference, padded.teacher = (LiveTeacher(tmp_path / name, EXACT) for name in ("student", "padded"))
    scores = padded.scores(batch_of().split(1000)[0], {})
    batch = batch_of()
    trained = (batch.labels != IGNORE) & (batch.sequence % 2 == 0)
    log_p, log_q = (
        m(batch.tokens, batch.positions)[trained][:, :280].log_softmax(-1) for m in (padded.model, padded.teacher.model)
    )
    torch.testing.assert_close(
        scores.values["pos"], divergence(log_p, log_q, "forward_kl").detach(), rtol=1e-3, atol=1e-6
    )
    dropped = module("bare")
    assert dropped.terms == PAIR_TERMS and dropped.coefficients["pos"] == dropped.coefficients["neg"] == 0
    assert dropped._live == (False, True)
    assert "THE TEACHER IS NOT USED" in caplog.text and "only L_DPO is trained" in caplog.text
    why = r"300 ids \(the student has 280\) and no tokenizer"
    with pytest.raises(ValueError, match=f"{why}: its distributions cannot be compared.*w_dpo is 0"):
        module("bare", w_dpo=0)
    aligned = module("other")
    assert aligned.terms == PAIR_TERMS + TOKEN_TERMS and aligned._live == (True, True)
    assert aligned.alignment is not None and padded.alignment is None


def test_resume_with_another_teacher_is_refused(make):
    module = make()
    module._identity = {"live teacher in float32": "aa", "live reference in float32": "bb"}
    saved = {"nbg_lightning": {"frozen": {"live teacher in float32": "cc", "live reference in float32": "bb"}}}
    module.check_checkpoint = lambda checkpoint: None
    saved["nbg_lightning"] |= {"skipped_steps": 0, "rope_theta": 1e4}
    with pytest.raises(ValueError, match="the live teacher in float32 of the checkpoint's run had other weights"):
        module.on_load_checkpoint(saved)
    saved["nbg_lightning"]["frozen"]["live teacher in float32"] = "aa"
    module.on_load_checkpoint(saved)


def test_predictions_and_validation_scores(make):
    module = make()
    batch = batch_of()
    rows = module.predict_step(batch.split(2 * LENGTH), 0)
    assert len(rows) == len(PAIRS) and {"chosen", "rejected", "margin", "accuracy", "dpo"} <= rows[0].keys()
    expected = naive(module)
    assert np.mean([row["margin"] for row in rows]) == pytest.approx(expected["margin"].item(), rel=1e-4)
    batch.source = torch.tensor([0, 1, 0, 1, 0, 1, 0, 0])
    module.validation_scores = PreferenceScores(["a", "b", "empty"], list(module.terms))
    module.validation_step(batch.split(2 * LENGTH), 0)
    found = module.validation_scores.compute()
    assert found["val/pos"] == pytest.approx(expected["pos"].item(), rel=1e-4)
    mine = [row["margin"] for index, row in enumerate(rows) if index % 2]
    assert found["val/b/margin"] == pytest.approx(np.mean(mine), rel=1e-4)
    assert not any("empty" in name for name in found)
