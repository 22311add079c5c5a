"""Writes the measurements in the docs and the README from the benchmarks' JSON results.

python benchmarks/readme_table.py            # rewrites docs/measured.md and README.md, each between its two marks
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "performance" / "results"
ROOT = Path(__file__).parents[1]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "measured.md"
BEGIN, END = "<!-- numbers: benchmarks/readme_table.py -->\n", "<!-- end of numbers -->\n"

File = dict[str, Any]
Row = tuple[str, str, str]  # what was asked, what came out, and the command that says so again


def _load(folder: Path, name: str) -> File:
    return json.loads((folder / f"{name}.json").read_text())


def _spread(ratio: dict[str, float]) -> str:
    low, high = ("lowest", "highest") if "lowest" in ratio else ("lower_quartile", "upper_quartile")
    return f"{ratio['median']:.2f} ({ratio[low]:.2f} to {ratio[high]:.2f})"


def _spreads(*ratios: dict[str, float]) -> str:
    return "; ".join(map(_spread, ratios))


def _threads(file: File) -> str:
    count = int(file["config"]["threads"] if "config" in file else file["machine"]["threads"])
    return f"{count} thread{'s' * (count != 1)}"


def _pretrain(file: File) -> list[Row]:
    rows = []
    for dtype, label in (("bfloat16", "bf16"), ("float32", "fp32")):
        if dtype not in file["results"]:
            continue
        results = file["results"][dtype]
        for side, setting in (("ours", ""), ("ours_compiled", " with `parallel.compile`")):
            names = ("over_best_trainer", "over_best_litgpt", "share_of_products")
            rows.append(
                (
                    f"pretraining{setting}, tokens a second over the better of Hugging Face's Trainer (eager, compiled); over "
                    f"litgpt's better; share of the rate of its matrix products alone by torch.mm ({label}, {_threads(file)})",
                    _spreads(*(results[f"{side}_{name}_wall"] for name in names)),
                    "pretrain.py",
                )
            )
    return rows


def _overhead(file: File) -> list[Row]:
    question = f"whole `fit` over a bare PyTorch loop, seconds a step (fp32, {_threads(file)})"
    return [(question, _spread(file["results"]["fit_over_bare"]), "pretrain_overhead.py")]


def _dtype(file: File) -> list[Row]:
    question = f"bf16 over fp32, tokens a second of a whole step ({_threads(file)})"
    return [(question, _spread(file["results"]["float32_over_bfloat16"]), "compute_dtype.py")]


def _lora(file: File) -> list[Row]:
    results = file["results"]
    faster = _spread(results["adapter_over_all_weights_in_tokens_a_second"])
    held = [own["gradient_bytes"] + own["optimizer_bytes"] for own in results["memory"].values()]
    question = "LoRA over all weights, tokens a second of a whole step; gradients and AdamW's states"
    answer = f"{faster}; {held[1] / 1e6:.0f} against {held[0] / 1e6:.0f} MB"
    return [(f"{question} (fp32, {_threads(file)})", answer, "lora.py")]


def _sft(file: File) -> list[Row]:
    results = file["results"]
    padded, trl = _spread(results["packed_over_padded_wall"]), _spread(results["packed_over_better_trl_wall"])
    question = "packed SFT over our padded batches; over the better of TRL's padded and packed, useful tokens a second"
    found = [(f"{question} (fp32, {_threads(file)})", f"{padded}; {trl}", "sft.py")]
    if "compiled_over_better_trl_wall" in results:
        ours = _spread(results["compiled_over_better_trl_wall"])
        both = _spread(results["compiled_over_best_trl_compiled_or_not_wall"])
        question = "packed SFT with `parallel.compile` over the better of TRL's; over the best with `torch_compile` too"
        found.append((f"{question} (fp32, {_threads(file)})", f"{ours}; {both}", "sft.py --compile"))
    return found


def _half_prompts(file: File) -> list[Row]:
    question = "DPO over TRL's DPOTrainer on pairs whose prompt is half of their tokens, useful tokens a second"
    answer = _spread(file["results"]["dpo_over_trl_wall"])
    return [(f"{question} (fp32, {_threads(file)})", answer, "dpd.py --prompt-share 0.5")]


def _choices(file: File) -> list[Row]:
    answer = "; ".join(f"{name} {_spread(of['over_lm_eval_wall'])}" for name, of in file["results"].items())
    question = "questions with five examples before them, over lm-eval's Hugging Face back end, items a second"
    return [(f"{question} (fp32, {_threads(file)})", answer, "choices.py")]


def _dpd(file: File) -> list[Row]:
    results = file["results"]
    cached = _spread(results["dpd_cached_over_dpo_cached_reference_wall"])
    return [
        (
            f"DPO over TRL's DPOTrainer, useful tokens a second (fp32, {_threads(file)})",
            _spread(results["dpo_over_trl_wall"]),
            "dpd.py",
        ),
        (
            "DPD with a cached teacher over DPO alone, both with a cached reference; bytes of a token in the cache "
            f"(fp32, {_threads(file)})",
            f"{cached}; {results['cache']['bytes_per_token']:.0f}",
            "dpd.py",
        ),
    ]


def _grpo(file: File) -> list[Row]:
    prompt, answer = round(file["results"]["data"]["mean_prompt_tokens"]), file["settings"]["new_tokens"]
    question = (
        "a GRPO step (generate, score, update) over TRL's GRPOTrainer, tokens of answers a second; "
        f"{file['settings']['group']} answers of {answer} tokens to prompts of {prompt}"
    )
    return [(f"{question} (fp32, {_threads(file)})", _spread(file["results"]["ours_over_better_trl_wall"]), "grpo.py")]


def _rollouts_ahead(file: File) -> list[Row]:
    settings, results = file["settings"], file["results"]
    size = f"{settings['prompts'] * settings['group']} answers of {settings['new_tokens']} tokens"
    question = (
        "a GRPO step with `rollouts: {max_staleness: 1}`, engine and trainer on a core each, over one after the other, each on "
        f"its core; each on both cores; {size} (fp32, 1 thread each)"
    )
    answer = _spreads(results["ahead_over_one_thread_each"], results["ahead_over_in_turn"])
    return [(question, answer, "rollouts_ahead.py")]


def _episodes(file: File) -> list[Row]:
    results = file["results"]
    question = (
        f"episodes of three turns over the engine alone, seconds; processor time of all processes (preset "
        f"`{file['settings']['preset']}`, {file['settings']['new_tokens']} tokens a turn, fp32, {_threads(file)})"
    )
    answer = _spreads(results["wall_episodes_over_engine"], results["episodes_over_engine"])
    return [(question, answer, "episodes.py")]


def _generation(file: File) -> list[Row]:
    over = file["native_over"]
    label = {"float32": "fp32", "bfloat16": "bf16"}[file["config"]["dtype"]]
    answer = "; ".join(f"{other} {_spread(over[other])}" for other in ("transformers", "vllm"))
    return [
        (
            f"native generation over others, new tokens a second ({label}, {_threads(file)})",
            answer,
            "generation.py",
        )
    ]


def _loss_head(file: File) -> list[Row]:
    settings, results = file["settings"], file["results"]
    full, bf16 = results["float32"], results["bfloat16"]
    size = f"{settings['tokens']:,} × {settings['vocab']:,} × {settings['dim']}"
    memory = [
        f"{one['extra_memory_mb']['chunked']:,} against {one['extra_memory_mb']['full']:,} MB" for one in (full, bf16)
    ]
    return [
        (
            f"loss head, extra memory at {size}: chunked against full logits (fp32; bf16; {_threads(file)})",
            "; ".join(memory),
            "loss_head.py",
        ),
        (
            f"loss head, time over full logits where those fit (fp32; bf16; {_threads(file)})",
            _spreads(full["time_chunked_over_full"], bf16["time_chunked_over_full"]),
            "loss_head.py",
        ),
    ]


def _distillation_head(file: File) -> list[Row]:
    rows = []
    for dtype, label in (("float32", "fp32"), ("bfloat16", "bf16")):
        results = file["results"][dtype]
        memory = results["extra_memory_mb"]
        sides = ("dpo", "dpd_cached", "dpd_live")
        rows.append(
            (
                "head of DPO; of DPD with a cached teacher; with a live one: extra memory at "
                f"{file['settings']['tokens']:,} tokens, time over cross-entropy ({label}, {_threads(file)})",
                "; ".join(
                    f"{memory[side]:,} MB, {_spread(results[f'time_{side}_over_cross_entropy'])}" for side in sides
                ),
                "distillation_head.py",
            )
        )
    return rows


def _data_order(file: File) -> list[Row]:
    results = file["results"]
    answer = (
        f"{results['samples_per_second']['median'] / 1e6:.1f} M; {results['first_access_at_1e9_seconds']:.2f} s, "
        f"{results['first_access_peak_mb']:.0f} MB"
    )
    question = f"sample order, look-ups a second; first access at index 10⁹ (integers, {_threads(file)})"
    return [(question, answer, "data_order.py")]


def _sandbox(file: File) -> list[Row]:
    results, workers = file["results"], file["settings"]["workers"]
    hostile = results["hostile"]
    answer = f"{results['programs_per_second']['median']:.0f}; {len(hostile['passed'])} of {hostile['programs']}"
    question = f"sandboxed programs a second; hostile programs scored as a pass (no tensors, {workers} workers)"
    return [(question, answer, "sandbox.py")]


def _stored_data(file: File) -> list[Row]:
    shares = [f"{100 * found['url']['wait_share']:.1f} %" for found in file["results"].values()]
    paces = " and ".join(f"{pace['seconds']} s" for pace in file["settings"]["paces"].values())
    latency, workers = 1000 * file["settings"]["latency_seconds"], file["settings"]["workers"]
    setting = f"no tensors, {workers} workers"
    question = f"data behind a URL, {latency:.0f} ms an answer: share of the time waited, steps of {paces} ({setting})"
    return [(question, "; ".join(shares), "stored_data.py")]


def _many_shards(file: File) -> list[Row]:
    results, settings = file["results"], file["settings"]
    number = settings["sources"] * settings["parts_of_each"]
    what = f"opening {number:,} prepared parts of {settings['sources']:,} sources (sizes compared); in a worker"
    answer = f"{results['open_seconds']:.1f} s, {results['added_peak_mb']:.0f} MB; {results['open_in_a_worker_seconds']:.1f} s"
    return [(f"{what} (integers, 1 thread)", answer, "many_shards.py")]


def _large_models(file: File) -> list[Row]:
    results, settings = file["results"], file["settings"]
    start, write = results["start"], results["write"]
    above = (start["peak_bytes"] - start["kept_bytes"]) / 1e9
    question = (
        f"start of a rank of {settings['ranks']} from a folder of {settings['start']}, memory above its weights; writing a "
        f"folder of {settings['write']} (bf16, 1 thread)"
    )
    answer = f"{start['seconds']:.0f} s, {above:.2f} GB; {write['seconds']:.0f} s, {write['peak_bytes'] / 1e9:.1f} GB"
    return [(question, answer, "large_models.py")]


TABLES: dict[str, Callable[[File], list[Row]]] = {  # by result, in the order of the table
    "pretrain": _pretrain,
    "pretrain_overhead": _overhead,
    "compute_dtype": _dtype,
    "lora": _lora,
    "sft": _sft,
    "dpd": _dpd,
    "dpd_half_prompts": _half_prompts,
    "grpo": _grpo,
    "grpo_long_prompts": _grpo,
    "rollouts_ahead": _rollouts_ahead,
    "rollouts_ahead_long": _rollouts_ahead,
    "episodes": _episodes,
    "episodes_small": _episodes,
    "choices": _choices,
    "generation_fp32_1thread": _generation,
    "generation_fp32_2threads": _generation,
    "generation_bf16_1thread": _generation,
    "loss_head": _loss_head,
    "distillation_head": _distillation_head,
    "data_order": _data_order,
    "many_shards": _many_shards,
    "stored_data": _stored_data,
    "large_models": _large_models,
    "sandbox": _sandbox,
}


def folders() -> list[Path]:
    """Of the processors that measurements of the table were run on, that with the most first."""
    found = {
        folder: sum((folder / f"{name}.json").is_file() for name in TABLES) for folder in sorted(RESULTS.iterdir())
    }
    return sorted((folder for folder, count in found.items() if count), key=lambda folder: -found[folder])


def rows(folder: Path) -> list[Row]:
    """Of those benchmarks whose results are there."""
    return [
        row
        for name, table in TABLES.items()
        if (folder / f"{name}.json").is_file()
        for row in table(_load(folder, name))
    ]


def _machine(folder: Path) -> str:
    files = (json.loads(file.read_text()) for file in sorted(folder.glob("*.json")))
    machine = next(file["machine"] for file in files if isinstance(file["machine"], dict))
    return f"{machine['cores']} cores of an {machine['processor']}"


def table() -> str:
    """All measurements as Markdown, a column for each processor."""
    machines = folders()
    answers = {folder: {(question, script): answer for question, answer, script in rows(folder)} for folder in machines}
    asked = list(dict.fromkeys(key for folder in machines for key in answers[folder]))
    names = [_machine(folder) for folder in machines]
    lines = [f"| question | {' | '.join(names)} | `benchmarks/performance/` |", "|---|" + "---|" * len(names) + "---|"]
    for question, script in asked:
        given = " | ".join(answers[folder].get((question, script), "") for folder in machines)
        lines.append(f"| {question} | {given} | `{script}` |")
    note = "Ratios are medians of paired runs with quartiles (generation: lowest and highest), without a GPU."
    return "\n".join([*lines, "", note])


def five_numbers() -> str:
    """The README's five, as Markdown: medians with quartiles, or lowest and highest; of a machine that has all of them."""
    names = ("pretrain", "loss_head", "generation_fp32_2threads", "sft", "grpo")
    folder = next(each for each in folders() if all((each / f"{name}.json").is_file() for name in names))
    pretrain = _load(folder, "pretrain")["results"]["bfloat16"]
    head = _load(folder, "loss_head")
    memory, size = head["results"]["float32"]["extra_memory_mb"], head["settings"]
    generation = _load(folder, "generation_fp32_2threads")["native_over"]
    trainers = "the better of Hugging Face's Trainer, eager and compiled"
    numbers = [
        (
            _spread(pretrain["ours_compiled_over_best_trainer_wall"]),
            f"pretraining, relative to {trainers} (bf16)",
        ),
        (
            _spread(_load(folder, "sft")["results"]["packed_over_better_trl_wall"]),
            "packed SFT relative to TRL, useful tokens per second",
        ),
        (_spread(_load(folder, "grpo")["results"]["ours_over_better_trl_wall"]), "a whole GRPO step relative to TRL"),
        (_spread(generation["vllm"]), "native generation relative to vLLM on a CPU"),
        (
            f"{memory['chunked']:,} MB instead of {memory['full']:,} MB",
            f"memory of the loss head at {size['tokens']:,} tokens and a vocabulary of {size['vocab']:,}",
        ),
    ]
    lines = ["| | speedup, or memory |", "|---|---|", *(f"| {what} | {number} |" for number, what in numbers)]
    note = f"Paired runs on {_machine(folder)}, without a GPU. [All measurements](docs/measured.md), also those that we lose."
    return "\n".join([*lines, "", note])


def between_marks(text: str, content: str) -> str:
    """A text with other content between its marks."""
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    return f"{before}\n{content}\n\n{after}"


WRITTEN: dict[Path, Callable[[], str]] = {PAGE: table, README: five_numbers}


def main() -> None:
    for path, content in WRITTEN.items():
        path.write_text(between_marks(path.read_text("utf-8"), content()), "utf-8")


if __name__ == "__main__":
    main()
