"""IFEval: instructions that code can verify (Zhou et al. 2023, arXiv 2311.07911)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import ClassVar

from nbg_lightning.evaluation.benchmark import Benchmark, HubName, Item
from nbg_lightning.evaluation.rows import Row
from nbg_lightning.scoring.result import Verdict, failure
from nbg_lightning.scoring.verifier import VerifierError, shared_verifier


@dataclass(kw_only=True)
class IFEval(Benchmark):
    """541 prompts. The score is the share of prompts for which every instruction is followed strictly.

    Further metrics are ``prompt_loose``, ``instruction_strict`` and ``instruction_loose``. Checked by lm-eval's code, in
    the sandbox; an instruction whose checker cannot run is an error, not a miss. Some need data of nltk, which the sandbox
    cannot download: ``python -m nltk.downloader punkt_tab``.
    """

    label: ClassVar[str] = "ifeval"
    licence: ClassVar[str] = "Apache-2.0"
    hub: ClassVar[HubName | None] = HubName("google/IFEval", None, "train")
    file_names: ClassVar[tuple[str, ...]] = ("ifeval", "input_data", "train", "test")
    stop_texts: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        missing = [
            name for name in ("lm_eval", "langdetect", "immutabledict", "nltk") if not importlib.util.find_spec(name)
        ]
        if missing:
            raise ValueError(
                f"{self.name} is checked by lm-eval's code, and {', '.join(missing)} is not installed; "
                "pip install 'nbg-lightning[eval]'"
            )

    def parse(self, row: Row, place: str) -> Item:
        instructions, arguments = row["instruction_id_list"], row["kwargs"]
        if not instructions or len(instructions) != len(arguments):
            raise ValueError(f"{len(instructions)} instructions with the arguments of {len(arguments)}")
        data = {"instructions": list(instructions), "arguments": [dict(each) for each in arguments]}
        return Item(str(row.get("key", place)), row["prompt"], data=data)

    def text(self, item: Item) -> str:
        return f"Instruction: {item.question}\nResponse:"

    def score(self, item: Item, text: str) -> Verdict:
        try:
            strict, loose = shared_verifier().call(
                "ifeval", item.data["instructions"], item.data["arguments"], item.question, text
            )
        except VerifierError as error:
            return failure(str(error))
        extra = {
            "prompt_loose": (float(all(loose)), 1.0),
            "instruction_strict": (float(sum(strict)), float(len(strict))),
            "instruction_loose": (float(sum(loose)), float(len(loose))),
        }
        return Verdict(float(all(strict)), answer=None, extra=extra)
