"""lm-evaluation-harness in this process: its tasks on the library's engines.

Log-likelihoods come from `LogLikelihoodScorer` and text from any `Engine`. All ranks call it, and share its documents.
Global random generators are not reseeded (`lm_eval.simple_evaluate` would reseed those of the training).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from nbg_lightning.data.tokenizer import Tokenizer
from nbg_lightning.distributed import broadcast_object, gather_objects, get_rank, get_world_size
from nbg_lightning.engines.protocol import Engine, Prompt, Sampling
from nbg_lightning.evaluation.log_likelihood import LogLikelihood, Request, Scorer, rolling_prefix, rolling_requests

try:
    from lm_eval import evaluator
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager
except ImportError as error:
    raise ImportError(f"lm-eval is not installed ({error}); pip install 'nbg-lightning[eval]'") from error

_DEFAULT_NEW_TOKENS = 256  # the harness's own default


class HarnessModel(LM):
    """An lm-eval model backed by an engine and a scorer.

    Prompts begin with bos if the tokenizer adds it by default. Contexts that are too long are truncated on the left, as in
    the harness's own back ends. A failing request raises, because the harness cannot represent failures.

    Args:
        engine: generates text; None if no task needs it.
        scorer: rates continuations.
        tokenizer: the model's tokenizer.
        window: maximum tokens of a prompt with its answer.
    """

    def __init__(self, engine: Engine | None, scorer: Scorer | None, tokenizer: Tokenizer, window: int):
        super().__init__()
        self.engine, self.scorer, self.tokenizer, self.window = engine, scorer, tokenizer, window
        self.prefix = rolling_prefix(tokenizer)

    # -- ranks ---------------------------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        return get_rank()

    @property
    def world_size(self) -> int:
        return get_world_size()

    def all_gather(self, tensor: Any) -> Any:
        import torch

        return torch.cat([each.reshape(-1) for each in gather_objects(tensor.cpu())])

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        values = gather_objects(obj)
        return values if self.rank == dst else None

    def barrier(self) -> None:
        gather_objects(None)

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path

    # -- requests ------------------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        pairs = [self._pair(*request.args) for request in requests]
        return [(each.total, each.is_greedy) for each in self._rated(pairs)]

    def _pair(self, context: str, continuation: str) -> Request:
        """Encode context and continuation as one text, split after the context's own ids; trailing spaces belong to the
        continuation.
        """
        if context == "":
            ids = self.tokenizer.encode(continuation)
            return Request((self.prefix,), tuple(ids))
        bare = context.rstrip()
        continuation, context = context[len(bare) :] + continuation, bare
        head, whole = self.tokenizer.encode_batch([context, context + continuation])
        known, new = [*self.tokenizer.begin, *whole[: len(head)]], whole[len(head) :]
        known = known[max(0, len(known) + len(new) - 1 - self.window) :]
        return Request(tuple(known), tuple(new))

    def _rated(self, requests: Sequence[Request]) -> list[LogLikelihood]:
        if self.scorer is None:
            raise ValueError("this lm-eval task rates given answers, and the engine only writes; use NativeEngine")
        found = self.scorer(requests)
        for each in found:
            if each.error is not None:
                raise ValueError(
                    f"lm-eval: a request cannot be rated ({each.error}); raise the window, or see the engine's messages"
                )
        return found

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        windows = [rolling_requests(self.tokenizer.encode(r.args[0]), self.prefix, self.window) for r in requests]
        found = iter(self._rated([request for own in windows for request in own]))
        return [math.fsum(next(found).total for _ in own) for own in windows]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        if self.engine is None:
            raise ValueError("this lm-eval task asks for text; give an engine")
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(index)
        every = sorted({key for keys in gather_objects(list(groups)) for key in keys})
        texts = [""] * len(requests)
        for key in every:  # the same calls on all ranks: engines may work together
            indices = groups.get(key, [])
            settings = json.loads(key)
            for index, text in zip(
                indices, self._written([requests[i].args[0] for i in indices], settings), strict=True
            ):
                texts[index] = text
        return texts

    def _written(self, contexts: list[str], settings: dict[str, Any]) -> list[str]:
        assert self.engine is not None
        until = settings.get("until") or []
        until = [until] if isinstance(until, str) else list(until)
        names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
        most = next((settings[name] for name in names if settings.get(name)), _DEFAULT_NEW_TOKENS)
        stop_ids = () if self.tokenizer.eos_id is None else (self.tokenizer.eos_id,)
        sampling = Sampling(
            max_new_tokens=most,
            temperature=float(settings.get("temperature") or 0.0) if settings.get("do_sample") else 0.0,
            top_p=float(settings.get("top_p") or 1.0),
            stop_ids=stop_ids,
            stop_strings=tuple(text for text in until if text),
        )
        room = max(1, self.window - most)
        prompts = [
            Prompt((*self.tokenizer.begin, *self.tokenizer.encode(context))[-room:], text=context)
            for context in contexts
        ]
        texts = []
        for (completion,) in self.engine.generate(prompts, sampling):
            if completion.finish_reason == "error":
                raise ValueError(
                    f"lm-eval: a prompt was not answered ({completion.error}); raise the window, or see the engine's messages"
                )
            text = completion.text
            if text is None:
                text = self.tokenizer.decode(completion.ids, skip_special_tokens=True)
            for stop in until:
                text = text.split(stop)[0] if stop else text
            texts.append(text)
        return texts


def evaluate_tasks(
    model: HarnessModel, tasks: Sequence[str], include_path: str | None = None, limit: int | None = None
) -> dict[str, float]:
    """Metrics of tasks and groups, the same on all ranks: ``<task>/<metric>``; filters other than ``none`` follow an @.

    Args:
        model: the model to evaluate.
        tasks: names of tasks or groups.
        include_path: folder with your own task files; the harness's own tasks are then not loaded, which saves seconds.
        limit: maximum documents per task.

    Raises:
        ValueError: an unknown task.
    """
    manager = TaskManager(include_path=include_path, include_defaults=include_path is None)
    if unknown := [name for name in tasks if name not in manager.all_tasks]:
        raise ValueError(f"lm-eval has no task {', '.join(unknown)}; check the name, or give include_path")
    whole = evaluator.evaluate(
        lm=model, task_dict=manager.load(list(tasks)), limit=limit, bootstrap_iters=0, log_samples=False
    )
    return broadcast_object({} if whole is None else numbers(whole["results"]))


def numbers(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The harness's table with metric names: ``acc,none`` of a task is ``task/acc``.

    Example:
        >>> numbers({"arc_easy": {"alias": "arc_easy", "acc,none": 0.5, "acc_stderr,none": "N/A"}})
        {'arc_easy/acc': 0.5}
    """
    found: dict[str, float] = {}
    for task, metrics in results.items():
        for name, value in metrics.items():
            metric, _, filtered = name.partition(",")
            if (
                isinstance(value, (int, float))
                and not isinstance(value, bool)
                and "," in name
                and "_stderr" not in metric
            ):
                found[f"{task}/{metric}" + (f"@{filtered}" if filtered not in ("", "none") else "")] = float(value)
    return found
