"""DPD against a teacher of another tokenizer: the plain loss for equal ones, and the same for any cut of a batch."""

import dataclasses
import json

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data import Tokenizer, train_bpe
from nbg_lightning.data.pair_batch import pair_row, stack_pairs
from nbg_lightning.data.pairs import RenderedPair
from nbg_lightning.modules.aligned import Alignment, alignment_with
from nbg_lightning.modules.dpd import PAIR_TERMS, TOKEN_TERMS, DPDModule
from nbg_lightning.teachers.alignment import TokenizerPair
from nbg_lightning.teachers.live import LiveTeacher
from nbg_lightning.testing import SMALL_SHAPE

EXACT = ParallelConfig(compute_dtype="float32")
TEXTS = {
    "ours": ["what is the answer? it is 42, and nothing else."] * 3,
    "other": ["an answer that is nothing is an answer too, whatever there is."] * 3,
}
LENGTH = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A student, a larger teacher of its tokenizer, and one of another."""
    folder = tmp_path_factory.mktemp("aligned")
    for name, seed, texts, size in (("student", 1, "ours", 290), ("same", 2, "ours", 290), ("other", 3, "other", 290)):
        shape = dataclasses.replace(SMALL_SHAPE, vocab_size=304, hidden_size=32 + 16 * (name != "student"))
        model = create_model(shape, seed=seed)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                parameter.mul_(1.0 if "norm" in parameter_name else 5.0)
        tokenizer = train_bpe(TEXTS[texts], size, folder / f"{name}-tokenizer")
        save_hugging_face(model, folder / name, Tokenizer(tokenizer), "float32", verify=False)
    return folder


@pytest.fixture(scope="module")
def pairs(folder):
    tokenizer = Tokenizer(folder / "student")
    end = tokenizer.token_id("<|im_end|>")
    made = []
    for prompt, *answers in (
        ("what is it?", "it is the answer", "nothing, whatever"),
        ("the answer?", "42", "an answer that is else"),
        ("what else is there?", "there is nothing", "is there?"),
    ):
        arrays = []
        for answer in answers:
            head = [tokenizer.bos_id, *tokenizer.encode(prompt), end]
            ids = np.array([*head, *tokenizer.encode(answer), end])
            arrays += [ids, np.arange(len(ids)) >= len(head)]
        made.append(RenderedPair(*arrays))
    return made


@pytest.fixture
def make(folder):
    def make(teacher, aligned, **options):
        module = DPDModule(
            base_weights=str(folder / "student"), teacher=str(folder / teacher), parallel=EXACT, **options
        )
        module.model = LiveTeacher(folder / "student", EXACT).model.requires_grad_()
        module.reference, module.teacher = (LiveTeacher(folder / name, EXACT) for name in ("same", teacher))
        module.terms = PAIR_TERMS + TOKEN_TERMS
        module.manual_backward = lambda loss: loss.backward()
        if aligned:
            pair = TokenizerPair(Tokenizer(folder / "student"), Tokenizer(folder / f"{teacher}-tokenizer"))
            module.alignment = Alignment(pair, 304, 304)
            if teacher == "same":  # with the rows of the heads that no token has: then all ids are shared
                everything = torch.arange(304)
                module.alignment._columns = module.alignment._columns.of(everything, everything, 304, 304)
        return module

    return make


def step(module, batch, micro_batch_tokens):
    module.micro_batch_tokens = micro_batch_tokens
    micros = module.on_before_batch_transfer(batch, 0)
    module.model.zero_grad()
    counts: dict = {}
    for micro in micros:
        for name, value in module.count(micro).items():
            counts[name] = counts.get(name, 0.0) + value
    sums = module._backward(micros, counts)
    means = {name: float(sums[name]) / counts[name] for name in counts}
    return means, {name: p.grad.clone() for name, p in module.model.named_parameters()}, counts


def rows_of(groups):
    rows = [pair_row(group, LENGTH * len(groups[0])) for group in [*groups, []]]
    return stack_pairs(rows, np.arange(len(rows)) % 2, np.zeros(len(rows)))


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_equal_tokenizers_give_the_plain_loss(make, pairs, divergence):
    batch = rows_of([[pair] for pair in pairs])
    plain = step(make("same", False, divergence=divergence), batch, 10**6)
    aligned = step(make("same", True, divergence=divergence), batch, 10**6)
    assert aligned[2] == plain[2]  # a chunk for every trained token
    assert aligned[0] == pytest.approx(plain[0], rel=1e-6, abs=1e-6)
    for name, gradient in plain[1].items():
        assert torch.allclose(aligned[1][name], gradient, rtol=1e-4, atol=1e-6), name


def test_any_cut_of_the_batch_gives_the_same(make, pairs):
    module = make("other", True)
    apart = step(module, rows_of([[pair] for pair in pairs]), LENGTH)
    packed = step(module, rows_of([pairs]), 10**6)
    unshared = step(make("other", True, share_prefixes=False), rows_of([pairs]), 10**6)
    assert 0 < apart[2]["pos"] < sum(int(pair.chosen_mask.sum()) for pair in pairs)  # chunks are fewer than tokens
    for other in (packed, unshared):
        assert other[2] == apart[2]
        assert other[0] == pytest.approx(apart[0], rel=1e-5, abs=1e-6)
        for name, gradient in apart[1].items():
            assert torch.allclose(other[1][name], gradient, rtol=1e-3, atol=1e-5), name
    assert apart[0]["pos"] > 0 < apart[0]["neg"]


def test_the_gradient_of_each_side_is_its_own(make, pairs):
    batch = rows_of([pairs])
    both = step(make("other", True, w_dpo=0.0), batch, 10**6)
    sides = [step(make("other", True, w_dpo=0.0, **{zero: 0.0}), batch, 10**6)[1] for zero in ("w_pos", "w_neg")]
    for name, gradient in both[1].items():
        assert torch.allclose(sides[0][name] + sides[1][name], gradient, rtol=1e-3, atol=1e-5), name


def test_validation_scores_are_by_the_domain_of_each_chunk(make, pairs):
    module = make("other", True)
    [micro] = module.on_before_batch_transfer(rows_of([pairs[:2], pairs[2:]]), 0)
    scores = module.scores(micro, {})
    chunks = micro.aligned
    for side, term in enumerate(TOKEN_TERMS):
        assert scores.rows[term].tolist() == chunks.row[chunks.sequence % 2 == side].tolist()
    assert sorted(set(scores.rows["pos"].tolist())) == [0, 1]


def test_a_teacher_whose_bytes_are_not_known_is_refused_in_a_line(folder, tmp_path):
    (tmp_path / "odd").mkdir()
    for file in (folder / "same").iterdir():
        (tmp_path / "odd" / file.name).write_bytes(file.read_bytes())
    backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "the": 1, "##re": 2}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    backend.save(str(tmp_path / "odd" / "tokenizer.json"))
    (tmp_path / "odd" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    student = dataclasses.replace(SMALL_SHAPE, vocab_size=304)
    with pytest.raises(
        ValueError, match=r"the teacher .*odd cannot be compared with the student .*bytes of its tokens"
    ):
        alignment_with(str(tmp_path / "odd"), student, Tokenizer(folder / "student"))
    assert alignment_with(str(folder / "same"), student, Tokenizer(folder / "student")) is None
    assert alignment_with(str(folder / "other"), student, None) is None
