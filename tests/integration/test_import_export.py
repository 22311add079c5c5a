"""From a Hugging Face folder through training on one and two ranks, and back: `base_weights`, `nbg import`, `nbg export`.

Run as a script, this file is the training.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbg_lightning.datamodules.ordered import OrderedDataModule
from nbg_lightning.testing import forget_digests, launchable_environment

TOKENIZER_SIZE = 300


class Toy(OrderedDataModule):
    """Random tokens."""

    bytes_per_token = {"a": 3.0}  # noqa: RUF012

    def __init__(self, tokenizer_folder: Path):
        super().__init__()
        self.tokenizer_folder = tokenizer_folder

    def source_windows(self, source: str, length: int) -> int:
        return 1000

    def fingerprints(self) -> dict[str, str]:
        return {"a": "x"}

    def read(self, source: str, window: int, length: int) -> Any:
        from nbg_lightning.core.batch import packed_row

        tokens = np.random.default_rng(window).integers(0, 512, length + 1)
        return (*packed_row(tokens, np.array([0, 10, 40])), None)


def full_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    from nbg_lightning.core.weight_sources import LiveWeights

    weights = LiveWeights(model)
    return {name: tensor.clone() for name, tensor in weights.read(list(weights.shapes)).items()}


def train(ranks: int, folder: Path, base: str, tokenizer: Path, resume: str | None = None) -> Any:
    """Four steps from `base`; leaves the weights at their start and end, and checkpoints at 2 and 4."""
    import lightning.pytorch as pl

    import nbg_lightning as nbg

    class Record(pl.Callback):
        def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
            self._save(trainer, module, "start.pt")

        def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
            self._save(trainer, module, "end.pt")

        def _save(self, trainer: pl.Trainer, module: Any, name: str) -> None:
            weights = full_weights(module.model)
            if trainer.is_global_zero:
                folder.mkdir(parents=True, exist_ok=True)
                torch.save({"shape": module.shape, "weights": weights}, folder / name)

    stages = [
        nbg.Stage("stable", 2 * 512, 1e-2, {"a": 1}),
        nbg.Stage("long", 2 * 512, [1e-2, 0.0], {"a": 1}, sequence_length=128, rope_theta=2e5),
    ]
    module = nbg.PretrainModule(
        base_weights=base,
        parallel=nbg.ParallelConfig(compute_dtype="float32"),
        ema_decay=0.9,
    )
    trainer = nbg.Trainer(
        accelerator="cpu",
        devices=ranks,
        default_root_dir=str(folder),
        callbacks=[nbg.FGWSD(stages, 512, 64), Record(), nbg.StepCheckpoint(every_n_steps=2, keep=5)],
        enable_progress_bar=False,
        logger=False,
    )
    trainer.fit(module, datamodule=Toy(tokenizer), ckpt_path=resume)
    return module


def script(ranks: int, root: Path, tokenizer: Path, base: str, previous: str) -> None:
    torch.set_num_threads(1)
    module = train(ranks, root / "fresh", base, tokenizer)
    if ranks == 1:
        return
    from nbg_lightning.core.hf_folder import save_hugging_face
    from nbg_lightning.data.tokenizer import Tokenizer

    save_hugging_face(module.model, root / "live", Tokenizer(tokenizer), dtype="float32")
    train(ranks, root / "second", previous, tokenizer)
    train(ranks, root / "resumed", base, tokenizer, str(root / "fresh/checkpoints/step-00000002"))


if __name__ == "__main__":
    script(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
    sys.exit()


def launch(*arguments: object) -> None:
    command = [sys.executable, __file__, *map(str, arguments)]
    environment = launchable_environment()
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]


def texts() -> list[str]:
    """Words of random letters."""
    letters = np.random.default_rng(0).choice(list("aeinrst"), size=(2000, 6))
    return [" ".join("".join(word) for word in letters)]


def load(file: Path) -> dict[str, Any]:
    return torch.load(file, weights_only=False)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def weights_at(place: Path, ema: bool = False) -> dict[str, torch.Tensor]:
    """What a fresh model on one rank has after loading from there."""
    from nbg_lightning.core import create_model
    from nbg_lightning.core.weights import load_base_weights, open_weights

    model = create_model(open_weights(place, ema).shape)
    load_base_weights(model, place, ema)
    return full_weights(model)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from nbg_lightning.data.tokenizer import train_bpe

    return train_bpe(texts(), TOKENIZER_SIZE, tmp_path_factory.mktemp("tokenizer") / "bpe")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, tokenizer: Path) -> Path:
    """A Hugging Face model from elsewhere, tied, in bfloat16, with its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("hf") / "source"
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=[2, 4],
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.to(torch.bfloat16).save_pretrained(folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, source: Path, tokenizer: Path) -> dict[int, Path]:
    """Training on one rank from the source; on two ranks from the source, and from the first's checkpoint."""
    root = tmp_path_factory.mktemp("runs")
    first = root / "one/fresh/checkpoints/step-00000004"
    launch(1, root / "one", tokenizer, source, first)
    launch(2, root / "two", tokenizer, source, first)
    return {1: root / "one", 2: root / "two"}


@pytest.mark.parametrize("ranks", [1, 2])
def test_base_weights_from_hugging_face(runs: dict[int, Path], source: Path, ranks: int) -> None:
    from safetensors.torch import load_file

    from nbg_lightning.core.names import hf_name

    start, end = load(runs[ranks] / "fresh/start.pt"), load(runs[ranks] / "fresh/end.pt")
    tensors = load_file(source / "model.safetensors")
    assert all(torch.equal(w, tensors[hf_name(name)].float()) for name, w in start["weights"].items())
    assert start["shape"].max_position_embeddings == 256
    assert not equal(start["weights"], end["weights"])  # it did train


def test_base_weights_from_a_checkpoint_of_another_number_of_ranks(runs: dict[int, Path]) -> None:
    end = load(runs[1] / "fresh/end.pt")
    start = load(runs[2] / "second/start.pt")
    assert equal(start["weights"], end["weights"])
    assert start["shape"].rope_theta == 2e5  # as the last stage left it


def test_a_resumed_run_has_its_own_weights(runs: dict[int, Path]) -> None:
    straight, resumed = load(runs[2] / "fresh/end.pt"), load(runs[2] / "resumed/end.pt")
    assert equal(straight["weights"], resumed["weights"])


@pytest.mark.parametrize("ranks", [1, 2])
def test_one_process_reads_checkpoints(runs: dict[int, Path], ranks: int) -> None:
    root = runs[ranks]
    end = load(root / "fresh/end.pt")["weights"]
    assert equal(weights_at(root / "fresh/checkpoints/step-00000004"), end)
    assert not equal(weights_at(root / "fresh/checkpoints/step-00000004", ema=True), end)


def test_two_ranks_export_a_model_in_memory(runs: dict[int, Path]) -> None:
    assert equal(weights_at(runs[2] / "live"), load(runs[2] / "fresh/end.pt")["weights"])


@pytest.mark.parametrize("ranks", [1, 2])
def test_export_then_import(
    runs: dict[int, Path], tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture, ranks: int
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from nbg_lightning.commands import export_weights, import_weights

    checkpoint = runs[ranks] / "fresh/checkpoints/step-00000004"
    out, back = tmp_path / "out", tmp_path / "back"
    arguments = [str(checkpoint), str(out), "--dtype", "float32", "--max-shard-size", "500KB"]
    assert export_weights.main(arguments) == 0
    assert "logits of transformers differ from ours by at most" in capsys.readouterr().out
    assert len(list(out.glob("*.safetensors"))) > 1
    assert {p.name for p in out.iterdir()} >= {"config.json", "generation_config.json", "tokenizer.json"}
    assert oct(out.stat().st_mode & 0o777) == "0o755"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    model, loaded = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.rope_parameters["rope_theta"] == 2e5
    assert (model.config.bos_token_id, model.config.eos_token_id) == (loaded.bos_token_id, loaded.eos_token_id)
    assert loaded.encode("nest rain 49") == AutoTokenizer.from_pretrained(tokenizer).encode("nest rain 49")
    # The template is ChatML, so a turn's end ends a generation too.
    stops = {loaded.eos_token_id, loaded.convert_tokens_to_ids("<|im_end|>")}
    assert set(model.generation_config.eos_token_id) == stops

    assert import_weights.main([str(out), str(back)]) == 0
    end = load(runs[ranks] / "fresh/end.pt")["weights"]
    assert equal(weights_at(out), end)
    assert equal(weights_at(back), end)
    assert json.loads((back / "config.json").read_text()) == json.loads((out / "config.json").read_text())


def test_export_of_averaged_weights_in_bfloat16(runs: dict[int, Path], tmp_path: Path) -> None:
    from nbg_lightning.commands import export_weights

    checkpoint = runs[2] / "fresh/checkpoints/step-00000004"
    assert export_weights.main([str(checkpoint), str(tmp_path / "out"), "--ema"]) == 0
    averaged = weights_at(checkpoint, ema=True)
    assert equal(weights_at(tmp_path / "out"), {name: w.bfloat16().float() for name, w in averaged.items()})


def test_import_keeps_dtype_tokens_and_tokenizer(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from safetensors.torch import load_file

    from nbg_lightning.commands import import_weights

    assert import_weights.main([str(source), str(tmp_path / "out")]) == 0
    assert "shape: vocab_size 512" in capsys.readouterr().out
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    assert equal(before, after)
    assert json.loads((tmp_path / "out/config.json").read_text())["eos_token_id"] == [2, 4]
    assert (tmp_path / "out/tokenizer.json").read_text() == (source / "tokenizer.json").read_text()


# -- what a user gets wrong --------------------------------------------------------------------------------------------


def test_nothing_is_compared_without_verification(
    runs: dict[int, Path], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files; on a machine that is too small for the comparison too."""
    from nbg_lightning.commands import export_weights, import_weights
    from nbg_lightning.core import hf_folder

    for command, given in {"import": source, "export": runs[1] / "fresh/checkpoints/step-00000004"}.items():
        main = {"export": export_weights.main, "import": import_weights.main}[command]
        checked, out = tmp_path / f"{command}-checked", tmp_path / command
        assert main([str(given), str(checked)]) == 0
        assert "transformers" in capsys.readouterr().out
        with monkeypatch.context() as small:
            small.setattr(hf_folder, "host_memory", lambda: 80_000)
            with pytest.raises(ValueError, match="--no-verify"):
                main([str(given), str(tmp_path / "refused")])
            assert main([str(given), str(out), "--no-verify"]) == 0
        assert "transformers" not in capsys.readouterr().out
        assert not (tmp_path / "refused").exists()
        assert (out / "model.safetensors").read_bytes() == (checked / "model.safetensors").read_bytes()


def test_core_or_base_weights_must_be_given(source: Path) -> None:
    import nbg_lightning as nbg

    with pytest.raises(ValueError, match="core is invalid: None without base_weights"):
        nbg.PretrainModule()
    assert nbg.PretrainModule(base_weights=str(source)).shape.hidden_size == 128


def refuses(arguments: list[object], words: str, kind: type[Exception] = ValueError, command: str = "export") -> None:
    from nbg_lightning.commands import export_weights, import_weights

    main = {"export": export_weights.main, "import": import_weights.main}[command]
    with pytest.raises(kind, match=words) as error:
        main([str(argument) for argument in arguments])
    assert "\n" not in str(error.value)


def test_bad_checkpoints_are_refused(runs: dict[int, Path], source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    checkpoint = runs[1] / "fresh/checkpoints/step-00000004"
    refuses([source, out], "is a Hugging Face model already")
    refuses([checkpoint, out], "is a checkpoint of a run", command="import")
    refuses([tmp_path / "last", out], "has no complete checkpoint; give a run")
    refuses([checkpoint, out, "--max-shard-size", "five"], "--max-shard-size is invalid: five")
    refuses([checkpoint, source], "exists", FileExistsError)

    copy = tmp_path / "step-00000004"
    shutil.copytree(checkpoint, copy)
    (copy / ".metadata").unlink()
    refuses([copy, out], "not a complete checkpoint")
    shutil.copy(checkpoint / ".metadata", copy)
    shard = next(copy.glob("*.distcp"))
    shard.write_bytes(shard.read_bytes()[:2000])
    refuses([copy, out], "distcp is damaged: it has 2,000 bytes instead of")
    forget_digests(copy)
    refuses([copy, out], "step-00000004 cannot be read")
    (copy / ".metadata").write_bytes(b"no")
    refuses([copy, out], "cannot be read")
    (copy / "meta.pt").write_bytes(b"no")
    refuses([copy, out], "meta.pt cannot be read")
    torch.save({"global_step": 1}, copy / "meta.pt")
    refuses([copy, out], "not written by nbg_lightning")
    assert not out.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000004"]


def test_tokenizers_are_checked(runs: dict[int, Path], tmp_path: Path) -> None:
    from nbg_lightning.data.tokenizer import train_bpe

    checkpoint = runs[1] / "fresh/checkpoints/step-00000004"
    copy, out = tmp_path / "step-00000004", tmp_path / "out"
    shutil.copytree(checkpoint, copy)
    forget_digests(copy)
    meta = torch.load(copy / "meta.pt", weights_only=True)
    for tokenizer, words, kind in [
        (None, "does not record the tokenizer of its run", ValueError),
        (str(tmp_path / "gone"), "does not exist; give --tokenizer", FileNotFoundError),
    ]:
        meta["nbg_lightning"]["tokenizer"] = tokenizer
        torch.save(meta, copy / "meta.pt")
        refuses([copy, out], words, kind)
    larger = train_bpe(texts(), 700, tmp_path / "larger")
    refuses([copy, out, "--tokenizer", larger], "has 700 ids, the model 512")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # that is meant
def test_averaged_weights_that_were_not_kept(runs: dict[int, Path], tmp_path: Path) -> None:
    import torch.distributed.checkpoint as dcp

    checkpoint = runs[1] / "fresh/checkpoints/step-00000004"
    weights = load(runs[1] / "fresh/end.pt")["weights"]
    dcp.save({f"state_dict.model.{k}": v for k, v in weights.items()}, checkpoint_id=tmp_path / "step-1", no_dist=True)
    for name in ("meta.pt", "digests.json"):
        shutil.copy(checkpoint / name, tmp_path / "step-1")
    forget_digests(tmp_path / "step-1")
    refuses([tmp_path / "step-1", tmp_path / "out", "--ema"], "trained without ema_decay")
