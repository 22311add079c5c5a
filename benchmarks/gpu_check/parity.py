"""Correctness of the CUDA path against float64 on a CPU, and against itself without compilation or float8."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from benchmarks.gpu_check.setting import LeftOut, Setting, loss_of, relative, within


def attention(here: Setting) -> dict[str, Any]:
    """Packed documents: values and gradients against one matrix product per document in float64."""
    from nbg_lightning.core.attention import attention_per_document, document_attention

    tokens, heads, kv_heads, size = (4096, 20, 4, 128) if here.cuda else (96, 4, 2, 16)
    offsets, generator = here.documents(tokens, tokens / 6), torch.Generator().manual_seed(0)
    drawn = [torch.randn(tokens, each, size, generator=generator) for each in (heads, kv_heads, kv_heads)]
    low = [each.to(here.device, here.dtype).requires_grad_() for each in drawn]
    high = [each.detach().cpu().double().requires_grad_() for each in low]
    weight = torch.randn(tokens, heads, size, generator=generator).double()
    out = document_attention(*low, offsets.to(here.device), tokens, size**-0.5)
    (out.double() * weight.to(here.device)).sum().backward()
    reference = attention_per_document(*high, offsets, size**-0.5)
    (reference * weight).sum().backward()
    found = {"values": relative(out, reference)}
    found |= {f"gradient of {n}": relative(a.grad, b.grad) for n, a, b in zip("qkv", low, high, strict=True)}
    return within(found, dict.fromkeys(found, 0.02 if here.cuda else 1e-5))


def shared_prefixes(here: Setting) -> dict[str, Any]:
    """Sequences with a shared prefix against separate ones: loss and gradients of a small model."""
    from functools import partial

    from nbg_lightning.core import preset
    from nbg_lightning.core.prefixes import pack_sequences

    shape = preset("nano")
    prompt = tuple(range(1, 41))
    sequences = [(*prompt, *range(50 + 7 * n, 70 + 7 * n)) for n in range(4)]
    found = []
    for shortest in (16, None):
        model = here.model(shape)
        packed = pack_sequences(sequences, shortest)
        batch = packed.input.to(here.device)
        places = torch.cat([torch.as_tensor(each).long() for each in packed.places])
        head = partial(_mean_logits, places=places.to(here.device))
        loss = model(*batch, head)
        loss.backward()
        found.append((loss, _gradient(model)))
    numbers = {"loss": relative(found[0][0], found[1][0]), "gradient": relative(found[0][1], found[1][1])}
    return within(numbers, dict.fromkeys(numbers, 0.03 if here.cuda else 1e-4))


def _mean_logits(hidden_BLD: Any, weight_VD: Any, places: Any) -> Any:
    """A function of every token of every sequence, so that shared tokens count once per sequence."""
    logits = hidden_BLD.flatten(0, 1).index_select(0, places).float() @ weight_VD.float().t()
    return logits.square().mean().clone()


def _gradient(model: Any) -> torch.Tensor:
    parts = [parameter.grad for parameter in model.parameters()]
    return torch.cat([(part.full_tensor() if hasattr(part, "full_tensor") else part).flatten().cpu() for part in parts])


def heads(here: Setting) -> dict[str, Any]:
    """Cross-entropy, token statistics and the preference head with a teacher, against full logits in float64."""
    from nbg_lightning.core.head import linear_cross_entropy, linear_token_statistics
    from nbg_lightning.core.head_distillation import linear_preference
    from nbg_lightning.core.head_teachers import LiveTargets

    tokens, width, vocabulary = (512, 2560, 32768) if here.cuda else (48, 16, 128)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).to(here.device, here.dtype)
    weight = (torch.randn(vocabulary, width, generator=generator) * 0.02).to(here.device, here.dtype)
    teacher = LiveTargets(hidden.roll(1, 0), weight.roll(1, 0))
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator).to(here.device)
    zeros, logits = torch.zeros_like(labels), torch.nn.functional.log_softmax

    def full(h: Any, w: Any) -> Any:
        return logits(h @ w.t(), dim=-1)

    def kl(h: Any, w: Any) -> Any:
        q = full(teacher.hidden.double().cpu(), teacher.weight.double().cpu())
        return (q.exp() * (q - full(h, w))).sum()

    own = labels.cpu()[:, None]
    pairs = {
        "cross-entropy": (
            lambda h, w: linear_cross_entropy(h, w, labels).loss,
            lambda h, w: -full(h, w).gather(1, own).sum(),
        ),
        "log-probs": (
            lambda h, w: linear_token_statistics(h, w, labels).log_probs.sum(),
            lambda h, w: full(h, w).gather(1, own).sum(),
        ),
        "teacher": (lambda h, w: linear_preference(h, w, labels, zeros, 2, teacher=teacher).loss, kl),
    }
    found = {}
    for name, (chunked, whole) in pairs.items():
        low = [each.detach().clone().requires_grad_() for each in (hidden, weight)]
        high = [each.detach().double().cpu().requires_grad_() for each in (hidden, weight)]
        first, second = chunked(*low), whole(*high)
        first.backward()
        second.backward()
        found[name] = relative(first, second)
        found[f"{name}, gradient of hidden"] = relative(low[0].grad, high[0].grad)
        found[f"{name}, gradient of weight"] = relative(low[1].grad, high[1].grad)
    return within(found, dict.fromkeys(found, 0.03 if here.cuda else 1e-4))


def decode(here: Setting) -> dict[str, Any]:
    """Log-probs of tokens sampled with the cache, against a forward over the whole text."""
    from nbg_lightning.core import preset
    from nbg_lightning.engines.native import NativeEngine
    from nbg_lightning.engines.protocol import Prompt, Sampling

    model = here.model(preset("nano"))
    with NativeEngine(model) as engine:
        prompts = [Prompt((1, 2, 3)), Prompt(tuple(range(5, 25)))]
        drawn = engine.generate(prompts, Sampling(max_new_tokens=12, temperature=1.0, n=2, seed=3))
        texts = [(prompt.ids, each) for prompt, own in zip(prompts, drawn, strict=True) for each in own]
        scored = engine.score([(*ids, *each.ids) for ids, each in texts])
    largest = 0.0
    for (ids, each), row in zip(texts, scored, strict=True):
        own = torch.tensor(row[len(ids) - 1 :])
        largest = max(largest, float((own - torch.tensor(each.log_probs)).abs().max()))
    return within({"log-probs, nats": largest}, {"log-probs, nats": 0.05 if here.cuda else 1e-4})


def compiled(here: Setting) -> dict[str, Any]:
    """Loss and gradients of compiled blocks against eager ones, for each kind of activation checkpointing."""
    from nbg_lightning.core import preset

    shape = preset("nano")
    batch = here.inputs(shape, 2, 128 if here.cuda else 32, 20)
    found = {}
    reference = None
    settings = {
        "eager": {},
        "full": {"activation_checkpointing": "full"},
        "selective": {"activation_checkpointing": "selective"},
        "compile": {"compile": True, "activation_checkpointing": "full"},
    }
    for name, parallel in settings.items():
        model = here.model(shape, **parallel)
        loss = loss_of(model, *batch)
        loss.backward()
        own = (loss.detach(), _gradient(model))
        if reference is None:
            reference = own
            continue
        found[f"{name}: loss"] = relative(own[0], reference[0])
        found[f"{name}: gradient"] = relative(own[1], reference[1])
    return within(found, dict.fromkeys(found, 0.03 if here.cuda else 1e-4))


def float8(here: Setting) -> dict[str, Any]:
    """Loss and gradients of each float8 recipe against bfloat16's."""
    from nbg_lightning.core import preset

    if here.cuda and torch.cuda.get_device_capability() < (8, 9):
        raise LeftOut("float8 needs compute capability 8.9")
    shape = preset("tiny") if here.cuda else preset("nano")
    batch = here.inputs(shape, 2, 512 if here.cuda else 32)
    recipes = ("rowwise", "rowwise_with_gw_hp") if here.cuda else ("emulate",)
    model = here.model(shape)
    loss = loss_of(model, *batch)
    loss.backward()
    expected = loss.detach(), _gradient(model)
    found = {}
    for recipe in recipes:
        model = here.model(shape, float8=recipe)
        loss = loss_of(model, *batch)
        loss.backward()
        found[f"{recipe}: loss"] = relative(loss, expected[0])
        found[f"{recipe}: gradient"] = relative(_gradient(model), expected[1])
    return within(found, {name: 0.01 if name.endswith("loss") else 0.3 for name in found})


def context_parallel(here: Setting) -> dict[str, Any]:
    """A window split over several ranks against one rank; needs as many devices."""
    raise LeftOut("one device: tests/distributed compares 2 and 4 ranks on CPUs")


def recompilations(here: Setting) -> dict[str, Any]:
    """Number of graphs compiled while rows, lengths and documents change: one for each of a few shapes."""
    from torch._dynamo.utils import counters

    from nbg_lightning.core import preset

    torch._dynamo.reset()
    counters.clear()
    shape = preset("nano")
    model = here.model(shape, compile=True, activation_checkpointing="full")
    sizes = ((1, 64, 1), (1, 64, 3), (1, 64, 5), (2, 64, 4), (1, 96, 2), (1, 33, 2), (1, 200, 7))
    for rows, length, documents in sizes if here.cuda else sizes[:3]:
        offsets = torch.linspace(0, rows * length, documents + 1).int().to(here.device)
        tokens = torch.randint(0, shape.vocab_size, (rows, length), device=here.device)
        positions = torch.arange(length, device=here.device).expand(rows, -1)
        loss_of(model, tokens, positions, offsets).backward()
    found = {"graphs": counters["stats"]["unique_graphs"], "limit": torch._dynamo.config.recompile_limit}
    return within(found, {"graphs": 4})


def host_synchronizations(here: Setting) -> dict[str, Any]:
    """Lines at which the host waits for the device inside forward and backward; there must be none."""
    from nbg_lightning.core import preset

    model = here.model(preset("nano"))
    batch = here.inputs(model.shape, 2, 64)
    loss_of(model, *batch).backward()
    here.wait()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if here.cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            loss_of(model, *batch).backward()
        finally:
            if here.cuda:
                torch.cuda.set_sync_debug_mode("default")
    waits = [each for each in seen if "synchroniz" in str(each.message)]
    places = sorted({f"{each.filename.split('site-packages/')[-1]}:{each.lineno}" for each in waits})
    if places:
        raise AssertionError(f"the host waits at {', '.join(places)}")
    return {"waits": 0}


def precision(here: Setting) -> dict[str, Any]:
    """The same steps on this device in its dtype, and on the CPU in float32: losses must stay close."""
    from nbg_lightning.core import create_model, preset
    from nbg_lightning.modules.optimizer import AdamWConfig, build_adamw

    shape = preset("nano")
    first = create_model(shape)
    second = here.model(shape)
    cpu = Setting("cpu", 1)
    losses = []
    for model, place in ((first, cpu), (second, here)):
        optimizer = build_adamw(model.parameters(), AdamWConfig(lr=3e-3))
        own = []
        for number in range(100 if here.cuda else 4):
            generator = torch.Generator().manual_seed(number)
            tokens = torch.randint(0, 64, (4, 64), generator=generator).to(place.device)
            positions = torch.arange(64, device=place.device).expand(4, -1)
            offsets = torch.arange(0, 257, 64, dtype=torch.int32, device=place.device)
            loss = loss_of(model, tokens, positions, offsets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            own.append(loss.detach())
        losses.append(torch.stack(own).float().cpu())
    found = {"last": float(losses[1][-1]), "largest difference": float((losses[0] - losses[1]).abs().max())}
    return within(found, {"largest difference": 0.05 if here.cuda else 1e-4})
