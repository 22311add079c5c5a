"""A teacher on a real vLLM server gives the same cache as the same weights in this process."""

import json

import numpy as np
import pytest
import torch

from nbg_lightning.cli import main
from nbg_lightning.core import create_model, preset
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.data import Tokenizer, train_bpe
from nbg_lightning.teachers.cache import TeacherCache
from nbg_lightning.teachers.server import ServerTeacher
from nbg_lightning.teachers.targets import FrozenModel, Sequence

pytestmark = [
    pytest.mark.slow,
    pytest.mark.vllm,
]


@pytest.fixture(scope="module")
def served(tmp_path_factory, serve):
    """Folder of a model, and the address of a server that has it."""
    root = tmp_path_factory.mktemp("served")
    train_bpe(["the quick brown fox jumps over the lazy dog " * 3] * 20, 300, root / "tokenizer")
    model = create_model(preset("nano", max_position_embeddings=256), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    save_hugging_face(model, root / "model", Tokenizer(root / "tokenizer"), dtype="float32", verify=False)
    with serve(root / "model", "--max-model-len", "256", "--max-logprobs", "16", "--served-model-name", "big") as url:
        yield root, url


def sequences(*lengths):
    random = np.random.default_rng(0)
    made = []
    for length in lengths:
        trained = np.zeros(length, bool)
        trained[length // 2 :] = True
        trained[length // 2 + 1] = length < 9
        made.append(Sequence(random.integers(0, 300, length), trained))
    return made


def test_targets_are_those_of_the_weights(served):
    root, url = served
    asked = sequences(4, 40, 7, 120)
    with ServerTeacher(url, concurrency=2) as server, FrozenModel(str(root / "model")) as model:
        assert server.fingerprint == f"{url} big"
        for theirs, ours in zip(server.top_k(asked, 16), model.top_k(asked, 16), strict=True):
            assert (theirs.ids == ours.ids).all()
            assert np.allclose(theirs.log_probs, ours.log_probs, atol=1e-4, rtol=0)
            assert np.allclose(np.exp(theirs.tail), np.exp(ours.tail), atol=1e-4, rtol=0)


def test_what_it_cannot_say_is_one_line(served):
    _, url = served
    with ServerTeacher(url, retries=0) as server:
        with pytest.raises(RuntimeError, match=r"HTTP 400.*--max-logprobs 17 or more"):
            server.top_k(sequences(4), 17)
        with pytest.raises(RuntimeError, match="HTTP 400"):
            server.top_k(sequences(300), 4)
        with pytest.raises(ValueError, match=r"temperature is invalid: 0\.7"):
            server.top_k(sequences(4), 4, 0.7)
    with pytest.raises(ConnectionError, match="lists no model"), ServerTeacher("http://127.0.0.1:9/v1", retries=0):
        pass


def test_command(served, tmp_path, capsys):
    root, url = served
    rows = [{"prompt": f"the {n}", "chosen": "fox " * (n + 1), "rejected": "dog"} for n in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"class_path": "nbg_lightning.data.PairJsonLines", "init_args": {"path": str(tmp_path / "pairs.jsonl")}}
    data = {
        "sources": {"pairs": source},
        "tokenizer": str(root / "tokenizer"),
        "sequence_length": 128,
        "tokens_per_step": 256,
        "data_dir": str(tmp_path / "data"),
        "num_workers": 0,
        "prepare_workers": 0,
    }
    (tmp_path / "dpd.yaml").write_text(
        json.dumps({"data": {"class_path": "nbg_lightning.PreferenceDataModule", "init_args": data}})
    )
    folders = {}
    for name, teacher in (("server", ["--server", url]), ("weights", ["--teacher", str(root / "model")])):
        reference = ["--reference", str(root / "model")]
        code = main(
            [
                "build-cache",
                "--config",
                str(tmp_path / "dpd.yaml"),
                *teacher,
                *reference,
                "-k",
                "8",
                "--out",
                str(tmp_path / name),
            ]
        )
        assert code == 0, capsys.readouterr().err
        [folders[name]] = [folder for folder in (tmp_path / name).iterdir() if folder.is_dir()]
    server, weights = TeacherCache(folders["server"]), TeacherCache(folders["weights"])
    assert (len(server), server.num_tokens) == (len(weights), weights.num_tokens)
    assert (server.identity.teacher, server.identity.dtype) == (f"{url} big", "server")
    for entry in weights._entries["key"]:
        one, two = server.lookup(entry.tobytes()), weights.lookup(entry.tobytes())
        assert (one.ids == two.ids).all() and np.allclose(one.log_probs, two.log_probs, atol=4e-3)
        assert (one.reference == two.reference).all()
