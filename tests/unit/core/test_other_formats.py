"""Unsupported weight formats: each is named in one line, with what to use instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nbg_lightning.core.config import preset
from nbg_lightning.core.create import create_model
from nbg_lightning.core.hf_folder import save_hugging_face
from nbg_lightning.core.weights import open_weights
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 290,
}
WEIGHTS = "model.safetensors"
GGUF = b"GGUF" + b"\x03" + bytes(64)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train_bpe(["what is the answer? it is 42, and nothing else than that."] * 3, 290, tmp_path / "tokenizer")
    model = create_model(preset("nano", num_hidden_layers=1, **SHAPE), seed=1)
    save_hugging_face(model, tmp_path / "model", Tokenizer(tmp_path / "tokenizer"), dtype="float32", verify=False)
    return tmp_path / "model"


def refusal(place: Path) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        open_weights(place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pickled(file: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, file)


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("model-Q4_K_M.gguf", lambda file: file.write_bytes(GGUF), "GGUF of llama.cpp"),
        ("pytorch_model.bin", pickled, "pickled by torch"),
        ("consolidated.00.pth", pickled, "pickled by torch"),
        ("model.onnx", Path.touch, "ONNX"),
        ("tf_model.h5", Path.touch, "TensorFlow's"),
        ("flax_model.msgpack", Path.touch, "Flax's"),
        ("weights.npz", Path.touch, "MLX"),
        (WEIGHTS, lambda file: file.write_bytes(GGUF), "GGUF of llama.cpp"),
        (WEIGHTS, lambda file: file.write_bytes(POINTER), "git lfs pull"),
        (WEIGHTS, pickled, "pickled by torch"),
        (WEIGHTS, lambda file: file.write_bytes(b"<!DOCTYPE html>"), "a web page"),
    ],
)
def test_a_folder_and_a_file_of_another_form(folder: Path, name: str, make: Callable[[Path], None], said: str) -> None:
    (folder / WEIGHTS).unlink()
    make(folder / name)
    assert f"{name}" in refusal(folder) and said in refusal(folder)
    assert said in refusal(folder / name)
    (folder / "config.json").unlink()
    assert said in refusal(folder)


def test_what_a_trainer_left_beside_them_is_no_form_of_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    pickled(folder / "training_args.bin")
    assert "training_args" not in refusal(folder)
