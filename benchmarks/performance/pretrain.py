"""Tokens per second of pretraining: ours, Hugging Face's Trainer and litgpt, relative to the machine's matrix products.

    python benchmarks/performance/pretrain.py --threads 2

One Llama (the preset ``small``: 29 M parameters, 8,192 ids), the same initial weights, rows, tokens per step and forward,
fused AdamW, clipping and threads; in bfloat16 (float32 parameters, except litgpt's ``bf16-true``) and float32. Every row is one
document, so that all sides do the same work and must reach the same losses, which is asserted. Each side is the training loop
that its users run, in its own process that executes a block of steps on request; blocks of all sides alternate. Ours: Trainer,
FSDP2, FGWSD and CurriculumDataModule. Hugging Face: Trainer with sdpa and bf16 autocast. litgpt: the ``fit`` of its pretraining
on Fabric; its model is compiled, as in its script. ``compiled`` sides of the others use their own switch. The peers run in
separate environments, which the script creates. ``products``: the matrix products of a step alone, by `torch.mm`. The first block
of every side, which compiles, is not timed. Memory is the peak resident set of each side's process, including all libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).parent))
from paired import resident_bytes
from race import (
    TRL_SETTINGS,
    Peer,
    Rates,
    add_common_arguments,
    alternate,
    begin,
    begin_peer,
    environment,
    now,
    our_trainer,
    say,
    settings_of,
)

LEARNING_RATE, WEIGHT_DECAY, BETAS, MAX_NORM = 3e-4, 0.1, (0.9, 0.95), 1.0

# By dtype: arguments of each side's process. Ours are between the others, so that compared sides are measured close together.
_LITGPT_ASIDE: dict[str, dict[str, Any]] = {
    "trainer": dict(library="trainer", compile=False),
    "trainer_compiled": dict(library="trainer", compile=True),
    "ours": dict(library="ours", compile=False),
    "ours_compiled": dict(library="ours", compile=True),
}
SIDES: dict[str, dict[str, dict[str, Any]]] = {
    "bfloat16": {
        **_LITGPT_ASIDE,
        "litgpt_mixed": dict(library="litgpt", precision="bf16-mixed"),
        "litgpt_true": dict(library="litgpt", precision="bf16-true"),
    },
    "float32": {**_LITGPT_ASIDE, "litgpt": dict(library="litgpt", precision="32-true")},
}
# Steps are compared by their losses: float32 differs by rounding, bfloat16 by where it rounds; bf16-true rounds weights too.
LARGEST_LOSS_DIFFERENCE = {"float32": 1e-3, "bfloat16": 0.01, "litgpt_true": 0.1}


class Pace:
    """Runs a block of training steps for every line of standard input, and reports how long it took.

    A training loop calls `before_step` at the same point of every step. At the end of standard input the process exits.

    Args:
        answers: where to.
        settings: of the process.
        about: the first answer, given when the first step could begin.
    """

    def __init__(self, answers: TextIO, settings: dict[str, Any], about: dict[str, Any]):
        self.answers, self.block, self.about = answers, settings["steps_per_block"], about
        self.step = 0
        self.losses: list[float] = []

    def before_step(self) -> None:
        """Wait, if a block ends here."""
        if self.step % self.block == 0:
            if self.step == 0:
                say(self.answers, self.about)
            else:
                wall, processor = (end - begin for begin, end in zip(self.begin, now(), strict=True))
                measured = {"wall": wall, "processor": processor, "peak_mb": resident_bytes() / 2**20}
                say(self.answers, {**measured, "losses": self.losses})
            if not sys.stdin.readline():
                os._exit(0)  # no loop expects to end here, and the run's results are not kept
            self.losses = []
            self.begin = now()
        self.step += 1


# -- ours --------------------------------------------------------------------------------------------------------------


def make_data(folder: Path, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Our datamodule on one long document, and its curriculum's settings."""
    import nbg_lightning as nbg
    from nbg_lightning.data import JsonLines, TokenizerConfig

    data = nbg.CurriculumDataModule(
        {"text": JsonLines(str(folder / "text.jsonl"))},
        TokenizerConfig(train_vocab_size=settings["vocab_size"]),
        data_dir=str(folder / "data"),
        validation_fraction=0.0,
        num_workers=1,
        prepare_workers=1,
    )
    tokens = settings["tokens_per_step"]
    stage = nbg.Stage("stable", settings["steps"] * tokens, LEARNING_RATE, {"text": 1})
    return data, dict(stages=[stage], tokens_per_step=tokens, sequence_length=settings["sequence_length"])


def prepare(folder: Path, shape: Any, settings: dict[str, Any]) -> None:
    """The text, its rows in the order of our steps, and the initial weights."""
    import torch

    import nbg_lightning as nbg
    from nbg_lightning.core.create import create_model
    from nbg_lightning.core.hf_folder import save_hugging_face
    from nbg_lightning.data import PackageSource

    text = "\n\n".join(PackageSource("stdlib", "docstrings").documents())
    (folder / "text.jsonl").write_text(json.dumps({"text": text}) + "\n")
    data, curriculum = make_data(folder, settings)
    data.prepare_data()
    data.setup("fit")
    data.use_curriculum(nbg.Curriculum(**curriculum))
    rows = []
    for batch in data.train_dataloader():
        assert (batch.positions == torch.arange(settings["sequence_length"])).all(), "a row is not one document"
        rows.append(torch.cat((batch.tokens, batch.labels[:, -1:]), dim=1))
    torch.save(torch.cat(rows), folder / "rows.pt")
    save_hugging_face(create_model(shape), folder / "model", dtype="float32", verify=False)


def ours(settings: dict[str, Any], answers: TextIO) -> None:
    """Our Trainer."""
    import lightning.pytorch as pl

    import nbg_lightning as nbg

    folder = Path(settings["folder"])
    data, curriculum = make_data(folder, settings)
    pace = Pace(answers, settings, {})

    class Wait(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            pace.before_step()

        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            pace.losses.append(float(trainer.callback_metrics["train/loss"]))

    module = nbg.PretrainModule(
        base_weights=str(folder / "model"),
        optimizer=nbg.AdamWConfig(weight_decay=WEIGHT_DECAY, betas=BETAS),
        parallel=nbg.ParallelConfig(compute_dtype=settings["dtype"], compile=settings["compile"]),
        micro_batch_tokens=settings["tokens_per_step"],
        max_grad_norm=MAX_NORM,
    )
    trainer = our_trainer(folder / settings["name"], settings["steps"], [], nbg.FGWSD(**curriculum), Wait())
    trainer.fit(module, datamodule=data)


# -- Hugging Face's Trainer --------------------------------------------------------------------------------------------


def hugging_face(settings: dict[str, Any], answers: TextIO) -> None:
    """transformers' Trainer."""
    import torch
    import transformers

    folder, rows = Path(settings["folder"]), settings["tokens_per_step"] // settings["sequence_length"]
    # Targets are given: by itself the model would train one token less of every row.
    data = [
        {"input_ids": row[:-1], "labels": row[1:], "shift_labels": row[1:]} for row in torch.load(folder / "rows.pt")
    ]
    about = {"transformers": transformers.__version__, "torch": torch.__version__}
    pace = Pace(answers, settings, about)

    class Wait(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            pace.before_step()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            pace.losses.append(logs["loss"])

    config = {
        **TRL_SETTINGS,
        "bf16": settings["dtype"] == "bfloat16",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / settings["name"]),
        max_steps=settings["steps"],
        per_device_train_batch_size=rows,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=WEIGHT_DECAY,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        max_grad_norm=MAX_NORM,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        torch_compile=settings["compile"],
        **config,
    )
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(folder / "model", dtype=torch.float32, attn_implementation="sdpa")
    trainer = transformers.Trainer(model, arguments, train_dataset=data, callbacks=[Wait()])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()


# -- litgpt ------------------------------------------------------------------------------------------------------------


def litgpt(settings: dict[str, Any], answers: TextIO) -> None:
    """litgpt's pretraining, with fused AdamW (its script has the slower loop on a CPU)."""
    from importlib.metadata import version

    import lightning
    import torch
    from lightning.fabric.loggers.logger import Logger
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.pretrain import fit
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
    from safetensors.torch import load_file
    from torch.utils.data import DataLoader

    folder, shape, length = Path(settings["folder"]), settings["shape"], settings["sequence_length"]
    pace = Pace(answers, settings, {"litgpt": version("litgpt"), "torch": torch.__version__})

    class Losses(Logger):
        name, version = "losses", "0"

        def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
            pace.losses.append(float(metrics["loss"]))

        def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    config = Config(
        block_size=shape["max_position_embeddings"],
        n_layer=shape["num_hidden_layers"],
        n_embd=shape["hidden_size"],
        n_head=shape["num_attention_heads"],
        n_query_groups=shape["num_key_value_heads"],
        head_size=shape["head_dim"],
        vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"],
        intermediate_size=shape["intermediate_size"],
        norm_class_name="RMSNorm",
        norm_eps=shape["rms_norm_eps"],
        mlp_class_name="LLaMAMLP",
        rope_base=int(shape["rope_theta"]),
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
    )
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision=settings["precision"], loggers=[Losses()])
    fabric.print = lambda *_: None
    fabric.launch()
    with fabric.init_module():
        model = GPT(config)
    weights: dict[str, Any] = {}
    copy_weights_hf_llama(config, {}, weights, load_file(folder / "model" / "model.safetensors"))
    model.load_state_dict(weights)
    if shape["tie_word_embeddings"]:
        model.transformer.wte.weight = model.lm_head.weight
    model.max_seq_length = length
    model = fabric.setup(torch.compile(model))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS, fused=True
    )
    rows, batch = torch.load(folder / "rows.pt"), settings["tokens_per_step"] // length

    class Rows(torch.utils.data.Dataset):
        """The batches of all steps; a step begins when its batch is asked for."""

        def __len__(self) -> int:
            return settings["steps"]

        def __getitem__(self, step: int) -> torch.Tensor:
            pace.before_step()
            return rows[step * batch : (step + 1) * batch]

    train, check = fabric.setup_dataloaders(DataLoader(Rows(), batch_size=None), DataLoader(rows[:batch], batch))
    fit(
        fabric=fabric,
        devices=1,
        state={
            "model": model,
            "optimizer": fabric.setup_optimizers(optimizer),
            "train_dataloader": train,
            "iter_num": 0,
            "step_count": 0,
        },
        train_dataloader=train,
        val_dataloader=check,
        out_dir=folder / settings["name"],
        tokenizer_dir=None,
        train=TrainArgs(
            save_interval=None,
            log_interval=1,
            global_batch_size=batch,
            micro_batch_size=batch,
            max_tokens=settings["steps"] * settings["tokens_per_step"],
            max_norm=MAX_NORM,
            min_lr=LEARNING_RATE,
            lr_warmup_steps=0,
        ),
        eval=EvalArgs(interval=settings["steps"] + 1, final_validation=False),
    )


LIBRARIES = {"ours": ours, "trainer": hugging_face, "litgpt": litgpt}


# -- the machine -------------------------------------------------------------------------------------------------------


class Products:
    """The matrix products of a training step, forward and backward, by `torch.mm` and nothing else."""

    def __init__(self, shape: Any, tokens: int, dtype: str):
        import torch

        width, heads = shape.hidden_size, shape.head_dim
        layers = shape.num_hidden_layers
        sizes = [  # inputs, outputs, how many
            (width, shape.num_attention_heads * heads, layers),
            (width, shape.num_key_value_heads * heads, 2 * layers),
            (shape.num_attention_heads * heads, width, layers),
            (width, shape.intermediate_size, 2 * layers),
            (shape.intermediate_size, width, layers),
            (width, shape.vocab_size, 1),
        ]
        self.products, self.flops = [], 0
        for inputs, outputs, count in sizes:
            x, w, grad = (
                torch.randn(*size).to(getattr(torch, dtype))
                for size in ((tokens, inputs), (outputs, inputs), (tokens, outputs))
            )
            self.products += [(x, w.t(), count), (grad, w, count), (grad.t(), x, count)]
            self.flops += 3 * 2 * tokens * inputs * outputs * count

    def gflops(self) -> Rates:
        """Of the step's products in their proportions, by both clocks."""
        import torch

        begin = now()
        for left, right, count in self.products:
            for _ in range(count):
                torch.mm(left, right)
        wall, processor = (last - first for first, last in zip(begin, now(), strict=True))
        return {"wall": self.flops / wall / 1e9, "processor": self.flops / processor / 1e9}


# -- all ---------------------------------------------------------------------------------------------------------------


class Side:
    """A training in its process."""

    def __init__(self, name: str, settings: dict[str, Any], python: Path | str, gflop_per_token: float):
        self.tokens = settings["steps_per_block"] * settings["tokens_per_step"]
        self.gflop_per_token = gflop_per_token
        self.peer = Peer(python, __file__, "--peer-process", {**settings, "name": name})
        self.losses: list[float] = []
        self.peak_mb = 0.0

    def block(self) -> Rates:
        """GFLOP/s of the next block, by both clocks."""
        answer = self.peer.ask({})
        self.losses += answer["losses"]
        self.peak_mb = answer["peak_mb"]
        gflop = self.tokens * self.gflop_per_token
        return {clock: gflop / answer[clock] for clock in ("wall", "processor")}


def race(dtype: str, shape: Any, settings: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """All sides in one dtype."""
    from paired import ratio

    folder = arguments.environments
    python = {"ours": sys.executable}
    for library, name in (("trainer", "trl"), ("litgpt", "litgpt")):
        if library not in arguments.without:
            python[library] = str(environment(name, folder))
    gflop_per_token = shape.flops_per_token(arguments.sequence_length) / 1e9
    sides = {
        name: Side(f"{dtype}_{name}", {**settings, "dtype": dtype, **side}, python[side["library"]], gflop_per_token)
        for name, side in SIDES[dtype].items()
        if side["library"] in python
    }
    about = {name: side.peer.answer() for name, side in sides.items()}
    products = Products(shape, arguments.tokens_per_step, dtype)
    found = alternate(
        {**{name: side.block for name, side in sides.items()}, "products": products.gflops}, arguments.repeats
    )
    for side in sides.values():
        side.peer.close()
    reference = sides["ours"].losses
    differences = {
        name: max(abs(a - b) / b for a, b in zip(side.losses, reference, strict=True)) for name, side in sides.items()
    }
    for name, difference in differences.items():
        allowed = LARGEST_LOSS_DIFFERENCE.get(name, LARGEST_LOSS_DIFFERENCE[dtype])
        assert difference <= allowed, f"{dtype} {name} does not train as ours: losses differ by {difference:.2%}"
    results: dict[str, Any] = {
        "gflop_per_second": found,
        "peak_mb": {name: side.peak_mb for name, side in sides.items()},
        "losses": {name: [side.losses[0], side.losses[-1]] for name, side in sides.items()},
        "largest_relative_loss_difference_to_ours": differences,
    }
    for clock, rate in found.items():
        tokens = {name: [v / gflop_per_token for v in values] for name, values in rate.items() if name != "products"}
        results[f"tokens_per_second_{clock}"] = tokens
        for name in ("ours", "ours_compiled"):
            results[f"{name}_share_of_products_{clock}"] = ratio(rate[name], rate["products"])
            for library in ("trainer", "litgpt"):
                theirs = [rate[side] for side, s in SIDES[dtype].items() if s["library"] == library and side in rate]
                if theirs:
                    best = [max(each) for each in zip(*theirs, strict=True)]
                    results[f"{name}_over_best_{library}_{clock}"] = ratio(rate[name], best)
                for side, s in SIDES[dtype].items():
                    if s["library"] == library and side in rate:
                        results[f"{name}_over_{side}_{clock}"] = ratio(rate[name], rate[side])
    results["about"] = {k: v for side in about.values() for k, v in side.items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_arguments(parser)
    parser.add_argument("--core", default="small", help="model preset")
    parser.add_argument("--tokens-per-step", type=int, default=4096, help="tokens per step, and per forward")
    parser.add_argument("--sequence-length", type=int, default=1024)
    parser.add_argument("--steps-per-block", type=int, default=2)
    parser.add_argument("--dtypes", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--without", nargs="+", choices=("trainer", "litgpt"), default=[])
    parser.add_argument("--peer-process", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer_process:
        settings = json.loads(arguments.peer_process)
        LIBRARIES[settings["library"]](settings, begin_peer(settings))
        return
    begin(arguments)
    import dataclasses

    from paired import write_result

    from nbg_lightning.core import preset

    shape = preset(arguments.core)
    with tempfile.TemporaryDirectory() as temporary:
        settings = {
            "folder": temporary,
            "shape": dataclasses.asdict(shape),
            "vocab_size": shape.vocab_size,
            "threads": arguments.threads,
            "steps_per_block": arguments.steps_per_block,
            "steps": (arguments.repeats + 1) * arguments.steps_per_block + 1,  # the last one is begun only
            "tokens_per_step": arguments.tokens_per_step,
            "sequence_length": arguments.sequence_length,
        }
        prepare(Path(temporary), shape, settings)
        results = {dtype: race(dtype, shape, settings, arguments) for dtype in arguments.dtypes}
    about = {
        "parameters": shape.num_parameters,
        "gflop_per_token": shape.flops_per_token(arguments.sequence_length) / 1e9,
    }
    write_result("pretrain", {**settings_of(arguments), "model": dataclasses.asdict(shape), **about}, results)


if __name__ == "__main__":
    main()
