"""Planned against measured peak memory and processor seconds per step, for real runs on gloo ranks on this machine.

    python benchmarks/performance/plan_check.py [--ranks 1 2 4] [--only sft grpo] [--memory-only] [--folder runs/plan-check]

Each config is a real `nbg fit` of a model with 21 M parameters: pretraining with accumulation and averaged weights, in
bfloat16, and with Muon; SFT with full checkpointing, and of an adapter; DPD with a live teacher and reference, and from a cache;
GRPO on the native engine. Each runs twice, or with ``--memory-only`` only the second time. In the first run a callback records
processor seconds per step (with one thread for matrix products, since ranks share the cores of a small machine). In the second,
glibc returns freed blocks immediately, so that the peak resident set is memory in use; the first run's peak, including glibc's
cached blocks, is recorded too. The plan is that of `nbg plan --prepared --device FILE` for the same config, with the mean length
of the run's answers (``--answer-tokens``), plus the memory of a process without tensors; FILE is made by `nbg plan --calibrate`
on this machine. An interrupted run resumes in the same folder; delete the folder to measure again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from paired import resident_bytes

HERE = Path(__file__).parent
CORE = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 1024,
}
STEPS = 3
MOST_TOKENS = 96  # of an answer
_GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # glibc: what is freed goes back to the system at once
PRETRAIN = {
    "model": {"class_path": "nbg_lightning.PretrainModule", "init_args": {"core": CORE, "micro_batch_tokens": 512}},
    "data": {
        "class_path": "nbg_lightning.CurriculumDataModule",
        "init_args": {
            "tokenizer": {"train_vocab_size": 512},
            "sources": {"code": {"class_path": "nbg_lightning.data.PackageSource", "init_args": {"packages": ["json"]}}},
        },
    },
    "trainer": {"callbacks": [{"class_path": "nbg_lightning.FGWSD", "init_args": {
        "tokens_per_step": 2048, "sequence_length": 256,
        "stages": [{"name": "all", "tokens": 2048 * STEPS, "lr": 1e-4, "mixture": {"code": 1}}],
    }}]},
}  # fmt: skip
CHATS = {"class_path": "nbg_lightning.data.ReasoningGymChat", "init_args": {"tasks": ["gsm_symbolic"], "count": 400}}
QUESTIONS = {
    "class_path": "nbg_lightning.data.ReasoningGymQuestions",
    "init_args": {"tasks": ["chain_sum"], "count": 400},
}


def configs(folder: Path) -> dict[str, dict[str, Any]]:
    """The configs to measure by name, and their weights."""
    start, chat = (str(folder / name / "checkpoints" / f"step-{STEPS:08d}") for name in ("start", "chat"))
    packed = {"sequence_length": 512, "tokens_per_step": 2048, "epochs": 4, "tokenizer": start}
    sft = {
        "model": {"class_path": "nbg_lightning.SFTModule", "init_args": {"base_weights": start, "micro_batch_tokens": 1024}},
        "data": {"class_path": "nbg_lightning.ChatDataModule", "init_args": {**packed, "sources": {"chats": CHATS}}},
        "trainer": {},
    }  # fmt: skip
    pairs = {"class_path": "nbg_lightning.data.PairJsonLines", "init_args": {"path": str(folder / "pairs.jsonl")}}
    dpd = {
        "model": {"class_path": "nbg_lightning.DPDModule", "init_args": {
            "base_weights": chat, "teacher": start, "micro_batch_tokens": 512}},
        "data": {"class_path": "nbg_lightning.PreferenceDataModule", "init_args": {
            **packed, "tokenizer": chat, "sources": {"pairs": pairs}}},
        "trainer": {},
    }  # fmt: skip
    grpo = {
        "model": {"class_path": "nbg_lightning.GRPOModule", "init_args": {
            "base_weights": chat, "reward": "nbg_lightning.rewards.MathReward", "max_new_tokens": MOST_TOKENS, "group_size": 4,
            "micro_batch_tokens": 512, "loss": {"name": "grpo", "zero_variance": "keep", "mask_truncated": False}}},
        "data": {"class_path": "nbg_lightning.PromptDataModule", "init_args": {
            "sources": {"sums": QUESTIONS}, "prompts_per_step": 4, "steps": STEPS, "max_prompt_tokens": 160}},
        "trainer": {},
    }  # fmt: skip
    return {
        "start": PRETRAIN,
        "chat": sft,
        "pretrain": changed(PRETRAIN, {"ema_decay": 0.99}),
        "pretrain_bf16": changed(PRETRAIN, {"parallel": {"compute_dtype": "bfloat16"}}),
        "pretrain_muon": changed(PRETRAIN, {"optimizer": {"algorithm": "muon"}}),
        "sft": changed(sft, {"parallel": {"activation_checkpointing": "full"}}),
        "sft_lora": changed(sft, {"lora": {"rank": 16}}),
        "dpd_live": dpd,
        "dpd_cached": changed(
            dpd, {}, {"cache": str(next(iter(sorted((folder / "cache").glob("teacher-*"))), folder))}
        ),
        "grpo": grpo,
    }


MEASURED = ("pretrain", "sft", "sft_lora", "dpd_live", "dpd_cached", "grpo", "pretrain_bf16", "pretrain_muon")


def changed(config: dict[str, Any], model: dict[str, Any], data: dict[str, Any] | None = None) -> dict[str, Any]:
    """The config with other settings of its module, in float32 unless they say otherwise."""
    made: dict[str, Any] = json.loads(json.dumps(config))
    made["model"]["init_args"] |= model
    made["data"]["init_args"] |= data or {}
    return made


class Measured(pl.Callback):
    """Writes a rank's processor seconds per step, and its peaks, to ``measured-RANK.json``."""

    def __init__(self, folder: str):
        self.folder, self.seconds, self.peaks = Path(folder), [], []
        self.begin = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak
        self.begin = time.process_time()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seconds.append(time.process_time() - self.begin)
        self.peaks.append(resident_bytes())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found = {"peak_bytes": self.peaks, "seconds": self.seconds}
        (self.folder / f"measured-{trainer.global_rank}.json").write_text(json.dumps(found))


def environment() -> dict[str, str]:
    root = str(HERE.parents[1])
    return {
        **os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join((root, str(HERE))),
    }  # fmt: skip


def nbg(*words: str, timeout: float = 900, variables: dict[str, str] | None = None) -> str:
    """Run a command, and return what it printed.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "nbg_lightning.cli", *words],
        env=environment() | (variables or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"nbg {' '.join(words)} ended with {done.returncode}: {done.stderr[-3000:]}")
    return done.stdout


def write_config(config: dict[str, Any], name: str, folder: Path) -> Path:
    """The config as a file, with the callback that measures."""
    import yaml

    made = json.loads(json.dumps(config))
    made["model"]["init_args"].setdefault("parallel", {}).setdefault("compute_dtype", "float32")
    trainer = made["trainer"]
    trainer |= {
        "default_root_dir": str(folder / name),
        "accelerator": "cpu",
        "limit_val_batches": 0,
        "max_steps": STEPS,
    }
    measure = {"class_path": "plan_check.Measured", "init_args": {"folder": str(folder / name)}}
    trainer["callbacks"] = [*trainer.get("callbacks", []), measure]
    if name not in ("start", "chat"):
        trainer["enable_checkpointing"] = False
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(made))
    return file


def run(file: Path, folder: Path, ranks: int, variables: dict[str, str]) -> tuple[float, float]:
    """Fit on this many ranks; returns the largest peak of a rank in GiB, and the ranks' mean seconds per step after the first."""
    for old in folder.glob("measured-*.json"):
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    nbg("fit", "--config", str(file), "--trainer.devices", str(ranks), variables=variables)
    found = [json.loads(each.read_text()) for each in sorted(folder.glob("measured-*.json"))]
    if len(found) != ranks:
        raise RuntimeError(f"{len(found)} of {ranks} ranks wrote what they measured")
    seconds = statistics.mean(statistics.median(each["seconds"][1:]) for each in found)
    return max(max(each["peak_bytes"][1:]) for each in found) / 2**30, seconds


def recorded(file: Path, metric: str) -> list[float]:
    """Values of a metric in a run's record, of its last `STEPS` steps; empty if it has none."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [row[metric] for row in rows if metric in row][-STEPS:]


def measured(file: Path, folder: Path, ranks: int, memory_only: bool) -> dict[str, float]:
    """Measure a config on this many ranks; existing results in the folder are reused."""
    kept = folder / f"{file.stem}-on-{ranks}.json"
    row: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    if "held_gib" not in row:
        row["held_gib"], _ = run(file, folder / file.stem, ranks, _GIVE_BACK)
    if "measured_seconds" not in row and not memory_only:
        row["resident_gib"], row["measured_seconds"] = run(file, folder / file.stem, ranks, {})
        lengths = recorded(folder / file.stem / "metrics.jsonl", "rollout/length")
        row |= {"answer_tokens": statistics.mean(lengths[1:])} if lengths else {}
    kept.write_text(json.dumps(row))
    return row


def pairs(folder: Path) -> None:
    """Pairs of some length, so that windows are as full as planned."""
    lines = []
    for number in range(24):
        words = " ".join(str(number + other) for other in range(30))
        prompt = [{"role": "user", "content": f"Count from {number} to {number + 30}."}]
        lines.append(json.dumps({"prompt": prompt, "chosen": words, "rejected": words[::-1]}))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")


def prepare(folder: Path, made: dict[str, Path]) -> None:
    """Weights, pairs and the teacher's cache that the configs begin with."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs(folder)
    for name in ("start", "chat"):
        if not (folder / name / "checkpoints" / f"step-{STEPS:08d}" / "meta.pt").exists():
            (folder / name).mkdir(exist_ok=True)
            nbg("fit", "--config", str(made[name]))
    if not list((folder / "cache").glob("*")):
        nbg("build-cache", "--config", str(made["dpd_live"]), "--out", str(folder / "cache"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--folder", type=Path, default=Path("runs/plan-check"))
    parser.add_argument(
        "--memory-only", action="store_true", help="do not measure time, which halves the number of runs"
    )
    parser.add_argument("--device", type=Path, help="file of `nbg plan --calibrate`; created by default")
    arguments = parser.parse_args()
    from paired import write_result

    from nbg_lightning.planning.device_file import read_device

    folder = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: write_config(config, name, folder) for name, config in configs(folder).items()}
    prepare(folder, made)
    made["dpd_cached"] = write_config(configs(folder)["dpd_cached"], "dpd_cached", folder)
    device = arguments.device or folder / "device.yaml"
    if not device.exists():
        nbg("plan", "--calibrate", str(device), "--device", "cpu", "--clock", "processor")
    results: dict[str, Any] = {}
    for name in arguments.only:
        for ranks in arguments.ranks:
            row: dict[str, Any] = measured(made[name], folder, ranks, arguments.memory_only)
            plan = folder / "plan.json"
            plan.unlink(missing_ok=True)  # an error ends with 1 too, as what does not fit
            words = ["plan", str(made[name]), "--ranks", str(ranks), "--device", str(device), "--prepared"]
            if name == "grpo":
                words += ["--answer-tokens", str(max(1, round(row.get("answer_tokens", MOST_TOKENS))))]
            nbg(*words, "--json", str(plan))
            (phase,) = json.loads(plan.read_text())[0]["phases"]
            memory = phase["memory_gib"]["total"] + read_device(device).reserved
            row |= {"planned_gib": phase["memory_gib"], "planned_seconds": phase["step_seconds"]}
            row["memory_planned_over_measured"] = memory / row["held_gib"]
            if "measured_seconds" in row:
                row["time_planned_over_measured"] = phase["step_seconds"]["total"] / row["measured_seconds"]
            results[f"{name} on {ranks}"] = row
            print(name, ranks, json.dumps(row), flush=True)
    settings = {"core": CORE, "steps": STEPS, "device": device.read_text(), "configs": list(arguments.only)}
    write_result("plan_check", settings, results)


if __name__ == "__main__":
    main()
