"""Caches of real models: their content, errors, and resuming after a kill."""

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch

from nbg_lightning import PreferenceDataModule
from nbg_lightning.cli import main
from nbg_lightning.core import create_model, preset
from nbg_lightning.core.fingerprint import source_fingerprint, weights_fingerprint
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.core.prefixes import pack_sequences
from nbg_lightning.core.weights import open_weights
from nbg_lightning.data import Tokenizer, train_bpe
from nbg_lightning.data.pair_sources import PairList
from nbg_lightning.data.pairs import sequence_key
from nbg_lightning.teachers.alignment import TokenizerPair
from nbg_lightning.teachers.build import batches, build_cache, data_identity
from nbg_lightning.teachers.cache import TeacherCache, open_cache
from nbg_lightning.teachers.targets import FrozenModel
from nbg_lightning.testing.served_lists import served_lists

VOCAB = 290
SHAPE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
PAIRS = [
    {"prompt": f"what is {n}?", "chosen": f"it is {n} " * (1 + n % 7), "rejected": f"nothing {n % 3}"}
    for n in range(30)
]


def model(folder, seed, tokenizer, **changes):
    made = create_model(preset("nano", **{**SHAPE, "head_dim": 16, "vocab_size": VOCAB, **changes}), seed=seed)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)  # distributions with a shape
    save_hugging_face(made, folder, tokenizer, dtype="float32", verify=False)
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("build")
    train_bpe(["what is the answer? it is 42, and nothing else than that."] * 3, VOCAB, root / "tokenizer")
    tokenizer = Tokenizer(root / "tokenizer")
    model(root / "teacher", 1, tokenizer)
    model(root / "student", 2, tokenizer, hidden_size=16)
    return root


@pytest.fixture(scope="module")
def data(root):
    made = PreferenceDataModule(
        {"pairs": PairList(PAIRS)},
        str(root / "tokenizer"),
        sequence_length=256,
        tokens_per_step=512,
        data_dir=str(root / "data"),
        validation_fraction=0.1,
        num_workers=0,
        prepare_workers=0,
    )
    made.setup("fit")
    return made


def build(root, data, out, k=8, **options):
    settings = {"teacher": FrozenModel(str(root / "teacher")), "reference": FrozenModel(str(root / "student"))}
    return build_cache(
        data.sequences,
        out=out,
        tokenizer="t",
        template="c",
        vocab_size=VOCAB,
        k=k,
        progress=False,
        **{**settings, **options},
    )


def log_probs_of(root, name, ids, temperature=1.0):
    """All log-probabilities after each id, by transformers in float64."""
    from transformers import AutoModelForCausalLM

    found = AutoModelForCausalLM.from_pretrained(root / name, dtype=torch.float64)
    with torch.no_grad():
        return (found(torch.from_numpy(ids)[None]).logits[0] / temperature).log_softmax(-1).numpy()


def test_what_teacher_and_reference_say(root, data, tmp_path):
    cache = build(root, data, tmp_path, batch_tokens=100)
    sequences = list(data.sequences())
    assert len(sequences) == 60 and len(cache) == len({sequence_key(*each) for each in sequences})
    for ids, trained in sequences[:12:3]:
        found = cache.lookup(sequence_key(ids, trained))
        places = np.flatnonzero(trained[1:])
        assert len(found.ids) == len(places) > 0
        full = log_probs_of(root, "teacher", ids)[places]
        top = np.take_along_axis(full, found.ids.astype(np.int64), 1)
        assert np.allclose(found.log_probs, top, atol=4e-3, rtol=1e-3)
        assert np.allclose(-np.sort(-full)[:, :8], top, atol=1e-4)  # the likeliest, in order
        outside = np.log(1 - np.exp(top).sum(1))
        assert np.allclose(found.tail, outside, atol=4e-3, rtol=1e-3)
        own = log_probs_of(root, "student", ids)[places, ids[places + 1]]
        assert np.allclose(found.reference, own, atol=1e-4)


def test_temperature_and_all_ids(root, data, tmp_path):
    cache = build(root, data, tmp_path, k=VOCAB, temperature=2.0, reference=None)
    ids, trained = next(iter(data.sequences()))
    found = cache.lookup(sequence_key(ids, trained))
    full = log_probs_of(root, "teacher", ids, 2.0)[np.flatnonzero(trained[1:])]
    assert np.allclose(found.log_probs, np.take_along_axis(full, found.ids.astype(np.int64), 1), atol=4e-3, rtol=1e-3)
    assert found.reference is None and (np.exp(found.tail) == 0).all()


def test_a_larger_vocabulary_is_cropped_to_the_common_one(root, data, tmp_path):
    tokenizer = Tokenizer(root / "tokenizer")
    big = model(tmp_path / "big", 1, tokenizer, vocab_size=VOCAB + 64)
    with torch.no_grad():
        big.lm_head.weight[VOCAB:].mul_(50)  # padding that was never trained may say anything
    save_hugging_face(big, tmp_path / "bigger", tokenizer, dtype="float32", verify=False)
    cache = build(root, data, tmp_path / "c", teacher=FrozenModel(str(tmp_path / "bigger"), VOCAB))
    ids, trained = next(iter(data.sequences()))
    found = cache.lookup(sequence_key(ids, trained))
    assert found.ids.max() < VOCAB
    full = log_probs_of(tmp_path, "bigger", ids)[np.flatnonzero(trained[1:])][:, :VOCAB]
    full -= np.log(np.exp(full).sum(1, keepdims=True))
    assert np.allclose(found.log_probs, np.take_along_axis(full, found.ids.astype(np.int64), 1), atol=4e-3, rtol=2e-3)


def test_fingerprints_are_those_of_the_models(root):
    for name in ("teacher", "student"):
        weights = open_weights(root / name)
        made = create_model(weights.shape)
        weights.load_into(dict(made.named_parameters()))
        assert FrozenModel(str(root / name)).fingerprint == source_fingerprint(weights) == weights_fingerprint(made)
    assert FrozenModel(str(root / "teacher")).fingerprint != FrozenModel(str(root / "student")).fingerprint


def test_shared_prompts_give_the_same_cache(root, data, tmp_path):
    """Chosen and rejected sequences, and all that begin alike, go through the models together: ids and numbers stay."""
    made = {}
    for share in (False, "auto", True):
        models = {
            role: FrozenModel(str(root / name), share_prefixes=share)
            for role, name in (("teacher", "teacher"), ("reference", "student"))
        }
        made[share] = build(root, data, tmp_path / str(share), share_prefixes=share, batch_tokens=300, **models)
    for ids, trained in data.sequences():
        expected, *others = (cache.lookup(sequence_key(ids, trained)) for cache in made.values())
        for found in others:
            assert np.array_equal(found.ids, expected.ids)
            for name in ("log_probs", "tail", "reference"):
                np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=2e-3, atol=2e-3)


def test_sequences_that_begin_alike_are_in_one_batch(data):
    found = list(batches(data.sequences, 400, lambda key: False, 1))
    tokens = [pack_sequences([s.ids[:-1] for _, s in batch], 1).num_tokens for batch in found]
    assert max(tokens) <= 400
    whole = sum(len(ids) - 1 for ids, _ in data.sequences())
    assert sum(tokens) < 0.8 * whole
    assert sum(map(len, found)) == len(data_identity(data.sequences)[1])


def test_batches_are_by_length_and_hold_everything_once(data):
    twice = lambda: [*data.sequences(), *data.sequences()]  # noqa: E731
    found = list(batches(twice, 60, lambda key: False))
    keys = [key for batch in found for key, _ in batch]
    assert len(keys) == len(set(keys)) == len(data_identity(twice)[1])
    lengths = [len(sequence) for batch in found for _, sequence in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert all(sum(len(s) - 1 for _, s in batch) <= 60 or len(batch) == 1 for batch in found)
    known = set(keys[::2])
    assert {key for batch in batches(twice, 60, known.__contains__) for key, _ in batch} == set(keys[1::2])
    # A set of sequences has one name, whatever their order.
    assert data_identity(twice)[0] == data_identity(lambda: list(data.sequences())[::-1])[0]
    assert data_identity(lambda: list(data.sequences())[1:])[0] != data_identity(twice)[0]
    with pytest.raises(ValueError, match="the data has no sequence"):
        data_identity(list)
    with pytest.raises(ValueError, match="has no trained one"):
        data_identity(lambda: [(np.arange(3), np.zeros(3, bool))])


def test_what_is_there_is_not_computed_again(root, data, tmp_path, monkeypatch):
    first = build(root, data, tmp_path)
    monkeypatch.setattr(FrozenModel, "__enter__", lambda self: pytest.fail("weights were read"))
    assert build(root, data, tmp_path).folder == first.folder
    monkeypatch.undo()
    others = [
        build(root, data, tmp_path, k=9),
        build(root, data, tmp_path, temperature=0.5),
        build(root, data, tmp_path, reference=None),
        build(root, data, tmp_path, teacher=FrozenModel(str(root / "student")), reference=None),
    ]
    assert len({first.folder, *(cache.folder for cache in others)}) == 5


def test_an_interrupted_build_goes_on(root, data, tmp_path, monkeypatch):
    straight = build(root, data, tmp_path / "straight", batch_tokens=64)
    original, done = FrozenModel.top_k, []

    def interrupted(self, sequences, *arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(len(sequences))
        return original(self, sequences, *arguments)

    monkeypatch.setattr(FrozenModel, "top_k", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(root, data, tmp_path / "cut", batch_tokens=64)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="is not finished; run the same nbg build-cache again"):
        TeacherCache(tmp_path / "cut" / straight.folder.name)
    cache = build(root, data, tmp_path / "cut", batch_tokens=64)
    for file in ("targets.bin", "index.bin"):
        assert (cache.folder / file).read_bytes() == (straight.folder / file).read_bytes()


def test_bad_teachers_are_one_line(root, data, tmp_path):
    tokenizer = Tokenizer(root / "tokenizer")
    broken = model(tmp_path / "nan", 1, tokenizer)
    with torch.no_grad():
        broken.norm.weight[0] = float("nan")
    save_hugging_face(broken, tmp_path / "broken", tokenizer, dtype="float32", verify=False)
    with pytest.raises(ValueError, match=r"model\.norm\.weight has 1 of 32 values that are NaN or infinite"):
        build(root, data, tmp_path / "c", teacher=FrozenModel(str(tmp_path / "broken")))
    model(tmp_path / "short", 1, tokenizer, max_position_embeddings=16)
    with pytest.raises(ValueError, match=r"the window of .*short is 16; lower"):
        build(root, data, tmp_path / "c", teacher=FrozenModel(str(tmp_path / "short")))


def test_a_teacher_without_a_tokenizer_is_taken_with_a_warning(root, config, tmp_path, caplog):
    model(tmp_path / "bare", 1, Tokenizer(root / "tokenizer"))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "bare" / file).unlink()
    with caplog.at_level(logging.WARNING):
        assert main(["build-cache", "--config", str(config), "-k", "4", "--teacher", str(tmp_path / "bare")]) == 0
    assert "has no tokenizer to compare" in caplog.text


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(root, tmp_path):
    """A config of `nbg fit` in YAML (JSON is YAML)."""
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    source = {"class_path": "nbg_lightning.data.PairJsonLines", "init_args": {"path": str(tmp_path / "pairs.jsonl")}}
    arguments = {
        "sources": {"pairs": source},
        "tokenizer": str(root / "tokenizer"),
        "sequence_length": 256,
        "tokens_per_step": 512,
        "cache": str(tmp_path / "caches"),
        "data_dir": str(tmp_path / "data"),
        "num_workers": 0,
        "prepare_workers": 0,
    }
    whole = {
        "model": {"init_args": {"teacher": str(root / "teacher"), "base_weights": str(root / "student")}},
        "data": {"class_path": "nbg_lightning.PreferenceDataModule", "init_args": arguments},
    }
    (tmp_path / "dpd.yaml").write_text(json.dumps(whole))
    return tmp_path / "dpd.yaml"


def test_command_and_the_run_that_uses_it(config, tmp_path, capsys):
    assert main(["build-cache", "--config", str(config), "-k", "4"]) == 0
    output = capsys.readouterr().out
    assert "60 sequences" in output and "bytes a token" in output and "train with it" not in output
    [folder] = [each for each in (tmp_path / "caches").iterdir() if each.is_dir()]
    assert f"{TeacherCache(folder).bytes_per_token:.0f} bytes a token" in output
    settings = json.loads(config.read_text())["data"]["init_args"]
    settings["sources"] = {"pairs": PairList(PAIRS)}
    data = PreferenceDataModule(**settings)
    data.setup("fit")
    assert data.teacher_cache.folder == folder
    # Other pairs are refused.
    other = PreferenceDataModule(**{**settings, "sources": {"pairs": PairList([{**PAIRS[0], "chosen": "else"}] * 3)}})
    with pytest.raises(ValueError, match="and is of other data; run nbg build-cache again"):
        other.setup("fit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-k", "1000"], "-k 1000 is more than the 290 ids"),
        (["-k", "0"], "-k is invalid: 0"),
        (["--temperature", "0"], "temperature is invalid: 0"),
        (["--teacher", "/nothing/here"], "/nothing/here"),
        (["--reference", "/nothing/here"], "/nothing/here"),
    ],
)
def test_command_errors_are_one_line(config, capsys, arguments, message):
    assert main(["build-cache", "--config", str(config), *arguments]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("nbg build-cache: error: ") and message in line


def test_command_without_teacher_reference_or_pairs(config, capsys):
    whole = json.loads(config.read_text())
    for change, message in (
        (lambda c: c["model"]["init_args"].pop("teacher"), "give --teacher WEIGHTS or --server URL"),
        (lambda c: c["model"]["init_args"].pop("base_weights"), "or --no-reference"),
        (lambda c: c.pop("data"), "no data.class_path"),
    ):
        changed = json.loads(json.dumps(whole))
        change(changed)
        config.write_text(json.dumps(changed))
        assert main(["build-cache", "--config", str(config)]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow  # three processes that import PyTorch
def test_kill_9(config, tmp_path):
    """Killed again and again, the command ends with the bytes of a straight run."""
    script = textwrap.dedent("""
        import sys
        import nbg_lightning.teachers.build as build
        one = build._cache_batch
        def slow(*arguments):
            one(*arguments)
            print("batch", flush=True)
            import time; time.sleep(0.05)
        build._cache_batch = slow
        from nbg_lightning.cli import main
        sys.exit(main(["build-cache", *sys.argv[1:]]))
    """)

    def start(out):
        command = [
            sys.executable,
            "-c",
            script,
            "--config",
            str(config),
            "-k",
            "4",
            "--batch-tokens",
            "64",
            "--out",
            str(out),
        ]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def batches_of(process):
        with process.stdout:
            return sum(line == "batch\n" for line in process.stdout)

    straight = start(tmp_path / "straight")
    whole = batches_of(straight)
    assert straight.wait() == 0 and whole > 8
    killed = start(tmp_path / "killed")
    for _ in range(5):
        assert killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    time.sleep(0.1)
    second = start(tmp_path / "killed")
    assert batches_of(second) <= whole - 4 and second.wait() == 0
    [first], [other] = (
        [folder for folder in (tmp_path / name).iterdir() if folder.is_dir()] for name in ("straight", "killed")
    )
    assert first.name == other.name
    for file in ("targets.bin", "index.bin", "complete.json"):
        assert (first / file).read_bytes() == (other / file).read_bytes()


def test_a_teacher_of_another_tokenizer_is_cached_from_weights_and_from_a_server(root, config, tmp_path, capsys):
    """Built by the command, with the teacher's tokenizer next to it; a tokenizer other than the server's is an error."""
    train_bpe(["it is 42 or it is nothing, what is it? whatever the other words are"] * 3, VOCAB, tmp_path / "theirs")
    model(tmp_path / "foreign", 1, Tokenizer(tmp_path / "theirs"))
    command = ["build-cache", "--config", str(config), "-k", "8"]
    assert main([*command, "--teacher", str(tmp_path / "foreign"), "--out", str(tmp_path / "weights")]) == 0
    with served_lists(tmp_path / "foreign") as url:
        served = [*command, "--server", url, "--no-reference", "--out", str(tmp_path / "served")]
        assert main([*served, "--server-tokenizer", str(tmp_path / "theirs")]) == 0
        capsys.readouterr()
        for wrong in ([], ["--server-tokenizer", str(root / "tokenizer")]):
            assert main([*served, *wrong]) == 2
            [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
            assert "has another tokenizer than the data" in line
    first, second = (open_cache(tmp_path / name) for name in ("weights", "served"))
    assert first.teacher_tokenizer.fingerprint == second.teacher_tokenizer.fingerprint
    assert first.identity.reference is not None is second.identity.reference
    made = PreferenceDataModule(**{**settings_of(config), "cache": str(tmp_path / "weights")})
    made.setup("fit")
    pair = TokenizerPair(made.tokenizer, first.teacher_tokenizer)
    for ids, trained in list(made.sequences())[:10]:
        count = len(pair.align(ids, trained).asked.places)
        told, other = (cache.lookup(sequence_key(ids, trained)) for cache in (first, second))
        assert 0 < count <= len(told.tail)
        assert np.array_equal(told.ids[:count], other.ids[:count])
        assert np.allclose(told.log_probs[:count], other.log_probs[:count], rtol=2e-3, atol=2e-3)
        assert len(told.reference) >= np.count_nonzero(trained[1:])
    assert main([*command, "--server-tokenizer", "x"]) == 2
    assert "--server-tokenizer is invalid: " in capsys.readouterr().err


def settings_of(config):
    """The data's settings of a config, with its pairs in memory."""
    return {**json.loads(config.read_text())["data"]["init_args"], "sources": {"pairs": PairList(PAIRS)}}
