"""DPD with a teacher of another tokenizer: the plain loss for equal ones, independent of micro-batches."""

import dataclasses
import json

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.core.create import create_model
from nbg_lightning.core.head_alignment import ChunkTokens, listed_divergence
from nbg_lightning.core.head_teachers import TopK
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data import Tokenizer, train_bpe
from nbg_lightning.data.pair_batch import Targets, pair_row, stack_pairs
from nbg_lightning.data.pairs import RenderedPair, sequence_key
from nbg_lightning.modules.aligned import Alignment, alignment_with, cached_alignment
from nbg_lightning.modules.dpd import PAIR_TERMS, TOKEN_TERMS, DPDModule
from nbg_lightning.teachers.alignment import TokenizerPair
from nbg_lightning.teachers.build import build_cache
from nbg_lightning.teachers.cache import TeacherCache
from nbg_lightning.teachers.live import LiveTeacher
from nbg_lightning.teachers.targets import FrozenModel, Sequence
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


# -- from a cache ------------------------------------------------------------------------------------------------------


def cached(folder, out, pairs, teacher, k, reference=None):
    """A cache of the pairs, with the tokenizer of a teacher, be it the student's own."""
    sequences = lambda: (side for pair in pairs for side in pair.sides)  # noqa: E731
    pair = TokenizerPair(Tokenizer(folder / "student"), Tokenizer(folder / teacher))
    models = [None if name is None else FrozenModel(str(folder / name)) for name in (teacher, reference)]
    return build_cache(sequences, *models, out, "t", "c", 304, k, progress=False, pair=pair)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
def test_all_ids_in_a_cache_are_the_live_teacher(make, pairs, folder, tmp_path, divergence):
    batch = rows_of([pairs])
    for teacher in ("same", "other"):
        live = make(teacher, True, divergence=divergence)
        module = make(teacher, True, divergence=divergence)
        cache = cached(folder, tmp_path / teacher, pairs, teacher, 304)
        module.teacher = None
        module.alignment = cached_alignment(cache, module.shape, Tokenizer(folder / "student"))
        if teacher == "same":
            module.alignment._columns = live.alignment._columns
        expected, found = step(live, batch, 10**6), step(module, batch, 10**6)
        assert found[2] == expected[2]
        assert found[0] == pytest.approx(expected[0], rel=2e-3)  # log-probs are kept in half precision
        for name, gradient in expected[1].items():
            assert (found[1][name] - gradient).norm() <= 5e-3 * gradient.norm(), name


def test_equal_tokenizers_in_a_cache_are_the_plain_cache(make, pairs, folder, tmp_path):
    """The same numbers of the teacher, read as lists of tokens and as lists of chunks."""
    sequences = lambda: (side for pair in pairs for side in pair.sides)  # noqa: E731
    plain = build_cache(sequences, FrozenModel(str(folder / "same")), None, tmp_path, "t", "c", 304, 8, progress=False)
    aligned = cached(folder, tmp_path, pairs, "same", 8)
    assert plain.folder != aligned.folder
    told = [plain.lookup(sequence_key(*side)) for side in sequences()]
    targets = [Targets(each.ids.astype(np.int32), each.log_probs, each.tail) for each in told]
    first, second = make("same", False), make("same", True)
    first.teacher = second.teacher = None
    columns = second.alignment._columns
    second.alignment = cached_alignment(aligned, second.shape, Tokenizer(folder / "student"))
    second.alignment._columns = columns
    batch = stack_pairs([pair_row(pairs, LENGTH * 3, None, targets, 8)], np.zeros(1), np.zeros(1))
    expected = step(first, batch, 10**6)
    found = step(second, rows_of([pairs]), 10**6)
    assert found[0] == pytest.approx(expected[0], rel=1e-6, abs=1e-6)
    for name, gradient in expected[1].items():
        assert torch.allclose(found[1][name], gradient, rtol=1e-4, atol=1e-6), name


def test_values_and_gradients_from_a_cache_are_those_of_whole_logits_in_float64(make, pairs, folder, tmp_path):
    module = make("other", True, w_dpo=0.0)
    module.teacher = None
    cache = cached(folder, tmp_path, pairs, "other", 5)
    tokenizer = Tokenizer(folder / "student")
    module.alignment = cached_alignment(cache, module.shape, tokenizer)
    means, gradients, counts = step(module, rows_of([pairs]), 10**6)

    student = LiveTeacher(folder / "student", EXACT).model.double().requires_grad_()
    pair = TokenizerPair(tokenizer, cache.teacher_tokenizer)
    sums = {"pos": 0.0, "neg": 0.0}
    columns = module.alignment.columns(torch.device("cpu"))
    for item in pairs:
        for term, (ids, trained) in zip(sums, item.sides, strict=True):
            aligned, kept = pair.align(ids, trained), cache.lookup(sequence_key(ids, trained))
            tokens = torch.from_numpy(ids[:-1])[None]
            hidden = student(tokens, torch.arange(len(ids) - 1)[None], head=lambda hidden, weight: hidden @ weight.t())
            log_p = hidden[0].log_softmax(-1)
            row = 0
            for (begin, end), (first, last) in zip(aligned.ours, aligned.theirs, strict=True):
                rows = slice(row, row + last - first)
                row += last - first
                told = TopK(
                    *(
                        torch.from_numpy(np.asarray(x[rows], kind))
                        for x, kind in zip(kept[:3], ("i8", "f8", "f8"), strict=True)
                    )
                )
                ours = ChunkTokens(torch.from_numpy(ids[begin:end]), torch.zeros(end - begin, dtype=torch.int64))
                theirs = ChunkTokens(
                    torch.from_numpy(aligned.ids[first:last]), torch.zeros(last - first, dtype=torch.int64)
                )
                sums[term] = (
                    sums[term]
                    + listed_divergence(log_p[begin - 1 : end - 1], told, ours, theirs, columns, module.measure).sum()
                )
    assert {name: value.item() / counts[name] for name, value in sums.items()} == pytest.approx(
        {name: means[name] for name in sums}, rel=1e-5
    )
    sum(value / counts[name] for name, value in sums.items()).backward()
    for name, parameter in student.named_parameters():
        assert torch.allclose(gradients[name].double(), parameter.grad, rtol=1e-3, atol=1e-6), name


def test_a_cache_has_its_tokenizer_and_the_reference_with_it(make, pairs, folder, tmp_path):
    cache = cached(folder, tmp_path, pairs, "other", 5, reference="same")
    assert cache.teacher_tokenizer.fingerprint == Tokenizer(folder / "other").fingerprint
    for pair in pairs:
        for ids, trained in pair.sides:
            found = cache.lookup(sequence_key(ids, trained))
            with FrozenModel(str(folder / "same")) as reference:
                [own] = reference.log_probs([Sequence(ids, trained)])
            assert np.allclose(found.reference[: len(own)], own, atol=1e-5)
    (cache.folder / "tokenizer" / "tokenizer.json").write_bytes((folder / "same" / "tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match="not the tokenizer of the cache's teacher; delete the cache"):
        TeacherCache(cache.folder).teacher_tokenizer  # noqa: B018
    (cache.folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer is no tokenizer .*delete the cache"):
        TeacherCache(cache.folder).teacher_tokenizer  # noqa: B018


def test_a_cache_of_other_data_is_refused(make, pairs, folder, tmp_path):
    module = make("other", True)
    module.alignment = cached_alignment(
        cached(folder, tmp_path, pairs[:1], "other", 5), module.shape, Tokenizer(folder / "student")
    )
    with pytest.raises(ValueError, match="it is of other data; run nbg build-cache again"):
        module.on_before_batch_transfer(rows_of([pairs]), 0)
