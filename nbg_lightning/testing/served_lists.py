"""A server of log-probabilities in vLLM's format, for tests of teachers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.teachers.live import LiveTeacher
from nbg_lightning.testing.json_server import json_server


@contextlib.contextmanager
def served_lists(folder: str | Path) -> Iterator[str]:
    """The URL of a server that lists the most likely ids at a prompt's tokens, with the weights in a folder."""
    tokenizer = Tokenizer(folder)
    model = LiveTeacher(str(folder), ParallelConfig(compute_dtype="float32")).model

    def answer(path: str, body: Any) -> Any:
        if body is None:
            return {"data": [{"id": "teacher"}]}
        ids, k = body["prompt"], body["prompt_logprobs"]
        with torch.no_grad():
            told = model(torch.tensor([ids]))[0, :-1].log_softmax(-1).sort(descending=True)
        lists: list[Any] = [None]
        for values, order, own in zip(*(part.tolist() for part in told), ids[1:], strict=True):
            entries = {
                str(id_): {"logprob": value, "rank": rank, "decoded_token": tokenizer.decode([id_])}
                for rank, (value, id_) in enumerate(zip(values, order, strict=True), start=1)
                if rank <= k or id_ == own
            }
            lists.append(entries)
        return {"choices": [{"prompt_logprobs": lists}]}

    with json_server(answer) as url:
        yield url
