"""An adapter against full fine-tuning in a whole training step: time, and the memory of gradients and AdamW states.

    python benchmarks/performance/lora.py

Forward, backward, clipping and AdamW of a model with 29 million parameters in float32, on the same batch. Steps of both sides
alternate and are timed in processor time, which is robust on a busy machine. Bytes are those of the tensors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from compute_dtype import random_batch
from paired import paired_seconds, ratio, write_result

import nbg_lightning as nbg
from nbg_lightning.core.batch import PackedBatch
from nbg_lightning.core.create import create_model
from nbg_lightning.core.lora import trained_parameters
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.modules.optimizer import AdamWConfig, build_adamw
from nbg_lightning.modules.pretrain import cross_entropy

SIDES = ("all_weights", "adapter")


class Side:
    """A model that trains one step per call; gradients are kept until the next one, so that they can be measured."""

    def __init__(self, shape: nbg.LanguageModelConfig, lora: LoRAConfig | None, batch: PackedBatch):
        self.model = create_model(shape, lora=lora)
        self.optimizer = build_adamw(list(trained_parameters(self.model).values()), AdamWConfig(lr=1e-4))
        self.micro = batch.split(batch.num_tokens)[0]

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        (cross_entropy(self.model, self.micro).loss / self.micro.num_tokens).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    @property
    def memory(self) -> dict[str, int]:
        """Bytes held besides the weights, and the number of trained parameters."""
        states = [each for state in self.optimizer.state.values() for each in state.values() if each.ndim]
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        return {
            "trained_parameters": sum(parameter.numel() for parameter in trained_parameters(self.model).values()),
            "gradient_bytes": sum(each.nbytes for each in gradients),
            "optimizer_bytes": sum(each.nbytes for each in states),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", default="small")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--sequence-length", type=int, default=1024)
    parser.add_argument("--document", type=int, default=256, help="length of the documents in a row")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = nbg.core.preset(arguments.core)
    batch = random_batch(shape.vocab_size, arguments.tokens, arguments.sequence_length, arguments.document)
    adapters = (None, LoRAConfig(rank=arguments.rank))
    sides = {name: Side(shape, lora, batch) for name, lora in zip(SIDES, adapters, strict=True)}
    steps: dict[str, Callable[[], None]] = dict(sides)
    seconds = paired_seconds(steps, arguments.repeats, time.process_time)
    results = {
        "parameters": shape.num_parameters,
        "adapter_over_all_weights_in_tokens_a_second": ratio(seconds["all_weights"], seconds["adapter"]),
        "processor_seconds_per_step": seconds,
        "memory": {name: side.memory for name, side in sides.items()},
    }
    write_result("lora", vars(arguments), results)


if __name__ == "__main__":
    main()
