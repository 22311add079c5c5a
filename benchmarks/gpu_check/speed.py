"""Speed and memory of steps, heads and attention, relative to the device's measured peak and to the plan."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks.gpu_check.setting import LeftOut, Setting, loss_of

_PACKAGES = ("torch", "torchtitan", "torchao", "triton", "lightning", "flash-attn", "vllm", "transformers", "trl")
_PLAN = """
import json, sys
from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.planning import Cluster, TrainingPhase, Workload, device_of, peak_memory, step_time
shape, parallel, rows, length, device, kind = json.loads(sys.argv[1])
phase = TrainingPhase("all", length, rows * length, 1, length)
work = Workload("pretraining", LanguageModelConfig(**shape), ParallelConfig(**parallel), rows * length, (phase,))
memory = peak_memory(work, phase, Cluster(1, 1), kind).total
print(json.dumps({"gib": memory, "seconds": step_time(work, phase, Cluster(1, 1), device_of(device)).total}))
"""


def environment(here: Setting) -> dict[str, Any]:
    """Versions, the device, and its measured peak of matrix products and memory bandwidth."""
    found: dict[str, Any] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if here.cuda:
        own = torch.cuda.get_device_properties(0)
        found |= {"device": own.name, "GiB": round(own.total_memory / 2**30, 1), "capability": [own.major, own.minor]}
    meter = here.stopwatch
    return {**found, "TFLOP/s": meter.products(here.dtype), "GB/s": meter.bandwidth()}


def attention_speed(here: Setting) -> dict[str, Any]:
    """Forward, and forward with backward, of 64K tokens in documents of three lengths."""
    from nbg_lightning.core.attention import document_attention

    found = {}
    total, heads, kv_heads, size = (65_536, 20, 4, 128) if here.cuda else (128, 4, 2, 16)
    for mean in (total, total // 16, total // 128 + 1):
        offsets = here.documents(total, mean) if mean < total else torch.tensor([0, total], dtype=torch.int32)
        shapes = [(total, each, size) for each in (heads, kv_heads, kv_heads)]
        q, k, v = (torch.randn(each, device=here.device, dtype=here.dtype).requires_grad_() for each in shapes)
        products = 4 * heads * size * float((offsets.diff().double() ** 2).sum()) / 2
        where, longest = offsets.to(here.device), int(offsets.diff().max())

        def both(q: Any = q, k: Any = k, v: Any = v, where: Any = where, longest: int = longest) -> None:
            document_attention(q, k, v, where, longest, size**-0.5).sum().backward()

        seconds = here.seconds(both)
        found[f"documents of {mean:,}"] = {"ms": seconds * 1e3, "TFLOP/s": 3.5 * products / seconds / 1e12}
    return found


def head_speed(here: Setting) -> dict[str, Any]:
    """Time of the chunked cross-entropy relative to its three matrix products, and its memory, at 166,144 ids."""
    from nbg_lightning.core.head import linear_cross_entropy

    tokens, width, vocabulary = (16_384, 2560, 166_144) if here.cuda else (64, 32, 512)
    hidden = torch.randn(tokens, width, device=here.device).to(here.dtype).requires_grad_()
    weight = (torch.randn(vocabulary, width, device=here.device) * 0.02).to(here.dtype).requires_grad_()
    labels = torch.randint(0, vocabulary, (tokens,), device=here.device)

    def both() -> None:
        hidden.grad = weight.grad = None
        linear_cross_entropy(hidden, weight, labels).loss.backward()

    part = hidden.detach()[: max(1, tokens // 5)]
    alone = here.seconds(lambda: [part @ weight.detach().t() for _ in range(3)]) * tokens / len(part)
    seconds = here.seconds(both)
    return {"ms": seconds * 1e3, "share of its products": alone / seconds, "peak GiB": here.peak_gib(both)}


def steps(here: Setting) -> dict[str, Any]:
    """Training steps of the 1 B and 3 B shapes at 4K and 64K: rate, MFU relative to measured products, memory, the plan."""
    peak = here.stopwatch.products(here.dtype) * 1e12
    found: dict[str, Any] = {}
    sizes = ((4, 4096), (1, 65_536)) if here.cuda else ((2, 32), (1, 64))
    fp8 = here.cuda and torch.cuda.get_device_capability() >= (8, 9)
    for name in ("nanbeige4-1b", "nanbeige4-3b"):
        for rows, length in sizes:
            settings: dict[str, dict[str, Any]] = {"compile": {"compile": True}, "eager": {}}
            if length == sizes[0][1]:
                settings["selective"] = {"compile": True, "activation_checkpointing": "selective"}
                if fp8:
                    settings["float8"] = {"compile": True, "float8": "rowwise"}
            if not here.cuda:
                settings = {"eager": {}}  # compilation is checked once, in `compiled`
            for setting, own in settings.items():
                parallel = {"activation_checkpointing": "full", "compute_dtype": here.dtype_name, **own}
                key = f"{name} {rows} x {length:,} {setting}"
                try:
                    found[key] = _step(here, name, rows, length, parallel, peak)
                except torch.cuda.OutOfMemoryError:
                    found[key] = {"left out": "does not fit"}
                release(here)
    for key in [key for key in found if key.endswith("float8")]:
        plain = found[key.replace("float8", "compile")]
        if "tokens/s" in found[key] and "tokens/s" in plain:
            found[key]["over bfloat16"] = found[key]["tokens/s"] / plain["tokens/s"]
    return found


def _step(here: Setting, name: str, rows: int, length: int, parallel: dict[str, Any], peak: float) -> dict[str, Any]:
    from nbg_lightning.modules.optimizer import AdamWConfig, build_adamw

    shape = here.shape(name)
    model = here.model(shape, **parallel)
    optimizer = build_adamw(model.parameters(), AdamWConfig())
    batch = here.inputs(shape, rows, length)

    def one() -> None:
        loss_of(model, *batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    begin = time.perf_counter()
    one()
    here.wait()
    first = time.perf_counter() - begin
    gib = here.peak_gib(one)
    seconds = here.seconds(one, 3)
    rate = rows * length / seconds
    return {
        "first step s": first,
        "step ms": seconds * 1e3,
        "tokens/s": rate,
        "MFU": rate * shape.flops_per_token(length) / peak,
        "peak GiB": gib,
    }


def planned(here: Setting) -> dict[str, Any]:
    """Planned memory and time of a step of the 1 B shape, relative to the measured ones."""
    import dataclasses

    rows, length = (4, 4096) if here.cuda else (2, 64)
    parallel = {"activation_checkpointing": "full", "compute_dtype": here.dtype_name}
    shape = here.shape("nanbeige4-1b")
    device = "h100"
    if here.cuda:
        name = torch.cuda.get_device_name().lower()
        device = next((each for each in ("a100", "h100", "h200", "b200") if each in name), "h100")
    given = [dataclasses.asdict(shape), parallel, rows, length, device if here.cuda else "cpu", here.device.type]
    words = [sys.executable, "-c", _PLAN, json.dumps(given)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    plan = json.loads(done.stdout.splitlines()[-1])
    measured = _step(here, "nanbeige4-1b", rows, length, parallel, 1e12)
    found = {"planned GiB": plan["gib"], "planned ms": plan["seconds"] * 1e3}
    found |= {"measured GiB": measured["peak GiB"], "measured ms": measured["step ms"]}
    if measured["peak GiB"] is not None:
        found["memory, planned / measured"] = plan["gib"] / measured["peak GiB"]
    found["time, planned / measured"] = found["planned ms"] / found["measured ms"]
    return found


def generation(here: Setting) -> dict[str, Any]:
    """New tokens per second of the native engine, and of transformers with the same weights if it is installed."""
    from nbg_lightning.core import preset
    from nbg_lightning.engines.native import NativeEngine
    from nbg_lightning.engines.protocol import Prompt, Sampling

    shape = preset("small") if here.cuda else preset("nano")
    rows, new = (64, 128) if here.cuda else (2, 4)
    ids = [tuple(range(1 + row, 33 + row)) for row in range(rows)]
    model = here.model(shape)
    with NativeEngine(model) as engine:
        sampling = Sampling(max_new_tokens=new, temperature=1.0, seed=0)
        seconds = here.seconds(lambda: engine.generate([Prompt(each) for each in ids], sampling), 2)
    found = {"native tokens/s": rows * new / seconds}
    if importlib.util.find_spec("transformers") is not None:
        found["transformers tokens/s"] = rows * new / _transformers_seconds(here, shape, ids, new)
        found["over transformers"] = found["native tokens/s"] / found["transformers tokens/s"]
    return found


def _transformers_seconds(here: Setting, shape: Any, ids: list[tuple[int, ...]], new: int) -> float:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.hidden_size, intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_hidden_layers, num_attention_heads=shape.num_attention_heads,
        num_key_value_heads=shape.num_key_value_heads, head_dim=shape.head_dim,
        max_position_embeddings=shape.max_position_embeddings, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(here.device, here.dtype).eval()
    tokens = torch.tensor(ids, device=here.device)
    options = {
        "max_new_tokens": new,
        "min_new_tokens": new,
        "do_sample": True,
        "attention_mask": torch.ones_like(tokens),
    }
    with torch.inference_mode():
        seconds = here.seconds(lambda: model.generate(tokens, **options), 2)
    return seconds


def grpo(here: Setting) -> dict[str, Any]:
    """An update on the answers of several groups, with and without shared prompts."""
    from nbg_lightning.core import preset
    from nbg_lightning.core.prefixes import shortest_shared
    from nbg_lightning.rl.policy_loss import PolicyLossConfig, policy_terms, rollout_statistics
    from nbg_lightning.rl.rollout_batch import TrainedAnswer, pack_answers, plan_groups, plan_micro_batches

    shape = preset("small") if here.cuda else preset("nano")
    prompt, answer, group, groups, budget = (512, 64, 16, 4, 16_384) if here.cuda else (24, 6, 2, 2, 128)
    answers = [
        TrainedAnswer(
            tuple(range(1, prompt + 1)), tuple(range(g + n + 1, g + n + 1 + answer)), (-5.0,) * answer, (-1.0) ** n
        )
        for g in range(groups)
        for n in range(group)
    ]
    model, loss, found = here.model(shape), PolicyLossConfig("grpo"), {}
    for name, share in (("shared", True), ("each by itself", False)):
        shortest = shortest_shared(share)

        def update(shortest: int | None = shortest) -> None:
            if shortest is None:
                plan = plan_micro_batches([each.positions for each in answers], budget)
            else:
                plan = plan_groups(answers, budget, shortest)
            for part in plan:
                on_device = pack_answers([answers[index] for index in part], shortest).to(here.device)
                log_probs = rollout_statistics(model, on_device, 1.0).log_probs
                policy_terms(log_probs, on_device, loss, answer).sums["policy"].backward()
            model.zero_grad()

        seconds = here.seconds(update, 2)
        found[name] = {"ms": seconds * 1e3, "answers/s": group * groups / seconds, "peak GiB": here.peak_gib(update)}
    return found


def against_trl(here: Setting) -> dict[str, Any]:
    """A GRPO step compared with TRL's, by the race of the performance page."""
    here.needs_cuda()
    if importlib.util.find_spec("trl") is None:
        raise LeftOut(
            "TRL is not installed: pip install trl, or benchmarks/performance/grpo.py makes its own environment"
        )
    words = [sys.executable, "benchmarks/performance/grpo.py", "--quick"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise LeftOut(f"the race did not run: {done.stderr.strip().splitlines()[-1][:200]}")
    return {"output": done.stdout[-2000:]}


def release(here: Setting) -> None:
    """Return freed memory to the device."""
    gc.collect()
    if here.cuda:
        torch.cuda.empty_cache()
