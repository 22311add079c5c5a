"""No command executes anything in the files of an untrusted checkpoint or model; it stops with a one-line reason."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.distributed.checkpoint.metadata import MetadataIndex

from nbg_lightning.cli import main
from nbg_lightning.data.tokenizer import train_bpe
from nbg_lightning.testing import SMALL_SHAPE, forget_digests, train_small

STEP, SHARD = "step-00000006", "__0_0.distcp"
SHAPE = replace(SMALL_SHAPE, vocab_size=272)  # a tokenizer has all bytes


class Touches:
    """Pickles as a call that makes a file."""

    def __init__(self, flag: Path):
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.flag}",)


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


# -- checkpoints of this library ----------------------------------------------------------------------------------------


def in_meta(folder: Path, code: Touches) -> None:
    meta = torch.load(folder / "meta.pt", weights_only=True)
    (folder / "meta.pt").write_bytes(saved({**meta, "callbacks": {"x": code}}))


def as_meta(folder: Path, code: Touches) -> None:
    (folder / "meta.pt").write_bytes(pickle.dumps(code))


def in_metadata(folder: Path, code: Touches) -> None:
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.planner_data = {"a": [code]}
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def as_metadata(folder: Path, code: Touches) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(code))


def as_a_tensor(folder: Path, code: Touches) -> None:
    """In the place of a weight, which every command reads."""
    content = saved(code)
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    place = metadata.storage_data[MetadataIndex("state_dict.model.norm.weight", torch.Size([0]), 0)]
    place.offset, place.length = (folder / SHARD).stat().st_size, len(content)
    with open(folder / SHARD, "ab") as file:
        file.write(content)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def as_the_shard(folder: Path, code: Touches) -> None:
    """A plain pickle where the tensors are."""
    size = (folder / SHARD).stat().st_size
    (folder / SHARD).write_bytes(pickle.dumps(code).ljust(size, b"\0"))


CHECKPOINTS = [in_meta, as_meta, in_metadata, as_metadata, as_a_tensor, as_the_shard]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_small(folder, checkpoint_every=3, module_options={"core": SHAPE})
    train_bpe(["a question, and what follows it"], SHAPE.vocab_size, folder / "tokenizer")
    for step in (folder / "checkpoints").glob("step-*"):
        forget_digests(step)
    return folder / "checkpoints"


def fit_config(folder: Path) -> Path:
    """A run that would go on from a checkpoint of `train_small`."""
    config = {
        "model": {
            "class_path": "nbg_lightning.PretrainModule",
            "init_args": {
                "core": asdict(SHAPE),
                "parallel": {"compute_dtype": "float32"},
                "micro_batch_tokens": 64,
            },
        },
        "data": {
            "class_path": "nbg_lightning.testing.SyntheticDataModule",
            "init_args": {"windows": {"a": 97, "b": 23}, "vocab_size": SHAPE.vocab_size},
        },
        "trainer": {"default_root_dir": str(folder / "resumed"), "accelerator": "cpu", "devices": 1, "max_steps": 8},
    }
    (folder / "fit.yaml").write_text(yaml.safe_dump(config))
    return folder / "fit.yaml"


COMMANDS: dict[str, Callable[[Path, Path, str], list[str]]] = {
    "export": lambda model, out, words: ["export", str(model), str(out / "exported"), "--tokenizer", words],
    "merge": lambda model, out, words: [
        *(
            "merge",
            str(model),
            str(model.with_name("step-00000003")),
            "--out",
            str(out / "merged"),
            "--tokenizer",
            words,
        )
    ],
    "import": lambda model, out, words: ["import", str(model), str(out / "imported"), "--tokenizer", words],
    "generate": lambda model, out, words: ["generate", str(model), "3 4", "--device", "cpu", "--tokenizer", words],
    "chat": lambda model, out, words: ["chat", str(model), "--device", "cpu", "--tokenizer", words],
    "fit": lambda model, out, words: ["fit", "--config", str(fit_config(out)), "--ckpt_path", str(model)],
    "fit from it": lambda model, out, words: [
        *("fit", "--config", str(fit_config(out)), "--model.init_args.base_weights", str(model))
    ],
}


def refused(command: str, model: Path, run: Path, monkeypatch: Any, capsys: Any) -> str:
    """The one line that a command ends with."""
    flag = model.parent / "flag"
    monkeypatch.setattr("sys.stdin", io.StringIO("3 4\n"))
    code = main(COMMANDS[command](model, model.parent, str(run.parent / "tokenizer")))
    assert not flag.exists()
    errors = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert code != 0
    assert len(errors) == 1, errors
    return errors[0]


CHEAP = [(command, place) for command in COMMANDS for place in CHECKPOINTS if not command.startswith("fit")]
RUNS = [("fit", as_metadata), ("fit", as_a_tensor), ("fit from it", as_a_tensor)]  # of which each sets up a trainer


@pytest.mark.parametrize(("command", "place"), CHEAP + RUNS)
def test_no_command_runs_what_stands_in_a_checkpoint(run, tmp_path, monkeypatch, capsys, command, place):
    model = shutil.copytree(run / STEP, tmp_path / STEP)
    shutil.copytree(run / "step-00000003", tmp_path / "step-00000003")
    place(model, Touches(tmp_path / "flag"))
    said = refused(command, model, run, monkeypatch, capsys)
    reason = "names posix.system|cannot be read" + ("|is a checkpoint of a run" if command == "import" else "")
    assert re.search(f"{STEP}.*({reason})", said)


# -- folders of other libraries -----------------------------------------------------------------------------------------


def as_(name: str) -> Callable[[Path, Touches], None]:
    """Weights that are a pickle, under this name."""

    def write(folder: Path, code: Touches) -> None:
        (folder / name).write_bytes(saved(code))

    return write


def own_code(folder: Path, code: Touches) -> None:
    """A Python file next to the weights, named by the config."""
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Words", None]}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": names}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Words", "auto_map": names}))
    (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    (folder / "evil.py").write_text(f"open({str(code.flag)!r}, 'w')\n")


FOLDERS = {
    **{name: as_(name) for name in ("pytorch_model.bin", "model.safetensors", "model.pt", "adapter_model.bin")},
    "code": own_code,
}


@pytest.mark.parametrize("command", [name for name in COMMANDS if not name.startswith("fit") and name != "merge"])
@pytest.mark.parametrize("name", FOLDERS)
def test_no_command_runs_what_stands_in_a_folder_of_weights(run, tmp_path, monkeypatch, capsys, command, name):
    model = tmp_path / "model"
    model.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **asdict(SHAPE)}
    (model / "config.json").write_text(json.dumps(config))
    FOLDERS[name](model, Touches(tmp_path / "flag"))
    said = refused(command, model, run, monkeypatch, capsys)
    assert re.search("pickled by torch, which may run code|the folder has no weights|'evil' is not supported", said)
