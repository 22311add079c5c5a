"""Writes the README's table of numbers from the JSON that the benchmarks left.

python benchmarks/readme_table.py            # rewrites README.md between its two marks
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "performance" / "results"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- numbers: benchmarks/readme_table.py -->\n", "<!-- end of numbers -->\n"


def _load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _spread(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['lower_quartile']:.2f} to {ratio['upper_quartile']:.2f})"


Row = tuple[str, str, str]


def _sft(file: dict[str, Any]) -> list[Row]:
    results = file["results"]
    padded, trl = _spread(results["packed_over_padded_wall"]), _spread(results["packed_over_better_trl_wall"])
    question = "packed SFT over our padded batches; over the better of TRL's padded and packed, useful tokens a second"
    found = [(f"{question} ({_threads(file)})", f"{padded}; {trl}", "sft.py")]
    if "compiled_over_better_trl_wall" in results:
        ours = _spread(results["compiled_over_better_trl_wall"])
        both = _spread(results["compiled_over_best_trl_compiled_or_not_wall"])
        question = "packed SFT with `parallel.compile` over the better of TRL's; over the best with `torch_compile` too"
        found.append((question, f"{ours}; {both}", "sft.py --compile"))
    return found


def _dpd(file: dict[str, Any]) -> list[Row]:
    results = file["results"]
    cached = _spread(results["dpd_cached_over_dpo_cached_reference_wall"])
    return [
        (
            f"DPO over TRL's DPOTrainer, useful tokens a second ({_threads(file)})",
            _spread(results["dpo_over_trl_wall"]),
            "dpd.py",
        ),
        (
            "DPD with a cached teacher over DPO alone, both with a cached reference; bytes of a token in the cache",
            f"{cached}; {results['cache']['bytes_per_token']:.0f}",
            "dpd.py",
        ),
    ]


def _grpo(file: dict[str, Any]) -> list[Row]:
    question = "a GRPO step (generate, score, update) over TRL's GRPOTrainer, tokens of answers a second"
    return [(f"{question} ({_threads(file)})", _spread(file["results"]["ours_over_better_trl_wall"]), "grpo.py")]


def _sandbox(file: dict[str, Any]) -> list[Row]:
    results = file["results"]
    hostile = results["hostile"]
    answer = f"{results['programs_per_second']['median']:.0f}; {len(hostile['passed'])} of {hostile['programs']}"
    return [("sandboxed programs a second; hostile programs scored as a pass", answer, "sandbox.py")]


def _post_training_rows() -> list[Row]:
    """Of those benchmarks whose results are there."""
    tables = {"sft": _sft, "dpd": _dpd, "grpo": _grpo, "sandbox": _sandbox}
    return [row for name, table in tables.items() if (RESULTS / f"{name}.json").is_file() for row in table(_load(name))]


def _threads(result: dict[str, Any]) -> str:
    count = int(result["settings"]["threads"])
    return f"fp32, {count} thread{'s' * (count != 1)}"


def rows() -> list[Row]:
    """What was asked, what came out, and the command that says so again."""
    overhead, head, order = _load("pretrain_overhead"), _load("loss_head")["results"], _load("data_order")["results"]
    dtype = _load("compute_dtype")["results"]
    memory = {name: head[name]["extra_memory_mb"] for name in ("float32", "bfloat16")}
    generation = {threads: _load(f"generation_fp32_{threads}") for threads in ("1thread", "2threads")}
    found = [
        (
            f"whole `fit` over a bare PyTorch loop, seconds a step ({overhead['machine']['threads']} threads)",
            _spread(overhead["results"]["fit_over_bare"]),
            "pretrain_overhead.py",
        ),
        (
            "loss head, extra memory at 4,096 × 166,144 × 512: chunked against full logits",
            f"{memory['float32']['chunked']} against {memory['float32']['full']:,} MB in float32, "
            f"{memory['bfloat16']['chunked']} against {memory['bfloat16']['full']:,} MB in bf16",
            "loss_head.py",
        ),
        (
            "loss head, time over full logits where those fit (float32; bf16)",
            f"{_spread(head['float32']['time_chunked_over_full'])}; {_spread(head['bfloat16']['time_chunked_over_full'])}",
            "loss_head.py",
        ),
        (
            "bf16 over fp32, tokens a second of a whole step",
            _spread(dtype["float32_over_bfloat16"]),
            "compute_dtype.py",
        ),
        (
            "sample order, look-ups a second; first access at index 10⁹",
            f"{order['samples_per_second']['median'] / 1e6:.1f} M; {order['first_access_at_1e9_seconds']:.2f} s, "
            f"{order['first_access_peak_mb']:.0f} MB",
            "data_order.py",
        ),
    ]
    for threads, result in generation.items():
        over = result["native_over"]
        text = "; ".join(
            f"{other} {over[other]['median']:.2f} ({over[other]['lowest']:.2f} to {over[other]['highest']:.2f})"
            for other in ("transformers", "vllm")
        )
        count = threads.removesuffix("threads").removesuffix("thread")
        found.append(
            (
                f"native generation over others, new tokens a second (fp32, {count} thread{'s' * (count != '1')})",
                text,
                "generation.py",
            )
        )
    return found + _post_training_rows()


def main() -> None:
    table = ["| question | answer | `benchmarks/performance/` |", "|---|---|---|"]
    table += [f"| {question} | {answer} | `{script}` |" for question, answer, script in rows()]
    machine = _load("pretrain_overhead")["machine"]
    note = (
        f"\nRatios are medians of paired runs with quartiles (generation: lowest and highest), on {machine['cores']} cores of "
        f"an {machine['processor']}, without a GPU.\n"
    )
    text = README.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    README.write_text(before + "\n" + "\n".join(table) + "\n" + note + "\n" + after)


if __name__ == "__main__":
    main()
