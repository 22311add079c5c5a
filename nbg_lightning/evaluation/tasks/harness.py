"""Tasks of lm-evaluation-harness as part of a suite."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.engines.capabilities import window_of
from nbg_lightning.engines.protocol import Engine
from nbg_lightning.evaluation.benchmark import Benchmark, Kind, Loaded
from nbg_lightning.evaluation.log_likelihood import Scorer
from nbg_lightning.evaluation.prompts import Prompts


@dataclass(kw_only=True)
class HarnessTasks(Benchmark):
    """lm-eval loads the items, builds the prompts and scores them; the model runs on this library's engine and scorer.

    Metrics are lm-eval's own: ``benchmark/<name>/<task>/<metric>``, without records of items.

    Args:
        tasks: names of tasks or groups, such as ``arc_easy``.
        include_path: a folder with your own task files, loaded instead of the harness's.
    """

    tasks: list[str]
    include_path: str | None = None

    label: ClassVar[str] = "lm_eval"
    kind: ClassVar[Kind] = "harness"
    licence: ClassVar[str] = "of each task"

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [
            name for name in ("path", "n", "max_new_tokens", "temperature", "top_p", "stop") if getattr(self, name)
        ]
        if given or self.num_shots:
            raise ValueError(
                f"{self.name}: {', '.join(given) or 'num_shots'} has no effect, since lm-eval's task files say it; leave it out"
            )
        if not self.tasks:
            raise ValueError(f"{self.name} has no tasks; give some")

    def check(self) -> None:
        if importlib.util.find_spec("lm_eval") is None:
            raise ValueError(f"{self.name} needs lm-eval; pip install 'nbg-lightning[eval]'")

    def load(self) -> Loaded:
        self.check()
        return Loaded([], [], f"lm-eval {importlib.metadata.version('lm-eval')}")

    def run(self, engine: Engine, prompts: Prompts, scorer: Scorer | None) -> dict[str, float]:
        """The harness's numbers, on all ranks."""
        from nbg_lightning.evaluation.lm_eval import HarnessModel, evaluate_tasks

        if prompts.tokenizer is None or prompts.format != "text":
            raise ValueError(f"{self.name} needs a tokenizer and the format 'text'; set format to text")
        window = window_of(engine) or window_of(scorer) or 2048
        model = HarnessModel(engine, scorer, prompts.tokenizer, window)
        return evaluate_tasks(model, self.tasks, self.include_path, self.limit)
