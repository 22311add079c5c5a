"""Useful tokens per second of SFT on conversations of widely varying lengths: packed, padded, and TRL's SFTTrainer.

    python benchmarks/performance/sft.py

One model (a 5.2 M-parameter Llama), one dataset, float32, one token budget per forward, the same threads; sides alternate.
TRL runs in its own environment, which the script creates from requirements-trl.txt, in a new process for each training run;
both sides get the same ids and masks. Useful tokens are those of conversations, without padding. A run is timed from the end of
its third step (when compilation is finished) to the end of its last, in wall-clock time and in processor time of its process; on
a shared machine only the latter measures the cost. ``compiled`` sides, which are packed, use ``torch.compile``: ours by
``parallel.compile``, TRL's by ``torch_compile``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from race import (
    SHAPE,
    TRL_SETTINGS,
    Ends,
    Rates,
    Trl,
    add_arguments,
    alternate,
    answer,
    begin,
    begin_peer,
    our_trainer,
    rates,
    settings_of,
)

WARM_UP_STEPS = 3  # of every run, not timed
ROWS_OF_TRL = 8  # conversations of a padded forward: the usual batch size


def make_conversations(number: int, longest: int) -> list[dict[str, Any]]:
    """Question and answer from this Python's docstrings, with log-normal lengths (median 220 tokens, sigma 1)."""
    import numpy as np

    from nbg_lightning.data import PackageSource

    random = np.random.default_rng(0)
    words = " ".join(PackageSource("stdlib", "docstrings").documents()).split()
    found, begin = [], 0
    for tokens in np.clip(np.exp(random.normal(np.log(220), 1.0, number)), 24, longest):
        size = max(4, int(tokens * 0.56))  # words: a word of this text is 1.8 tokens
        begin = (begin + size) % (len(words) - longest)
        cut = begin + max(1, round(size * random.uniform(0.15, 0.6)))
        turns = (("user", words[begin:cut]), ("assistant", words[cut : begin + size]))
        found.append({"messages": [{"role": role, "content": " ".join(text) or "-"} for role, text in turns]})
    return found


# -- ours --------------------------------------------------------------------------------------------------------------


class Ours:
    """Our trainer on the conversations, packed or padded."""

    def __init__(self, folder: Path, arguments: argparse.Namespace):
        from nbg_lightning import ChatDataModule
        from nbg_lightning.data import ChatList, train_bpe

        self.folder, self.arguments = folder, arguments
        conversations = make_conversations(arguments.conversations, arguments.longest)
        texts = [message["content"] for row in conversations for message in row["messages"]]
        tokenizer = train_bpe(texts * 2, SHAPE["vocab_size"], folder / "tokenizer")

        # A forward is one row: packed as long as TRL's packed rows, padded with about as many conversations as TRL's.
        self.window = {"best_fit": arguments.longest, "bucketed": arguments.budget, "padded": arguments.budget}

        def datamodule(packing: str) -> ChatDataModule:
            return ChatDataModule(
                {"chat": ChatList(conversations)},
                str(tokenizer),
                sequence_length=self.window[packing],
                tokens_per_step=arguments.budget * arguments.forwards,
                max_length=arguments.longest,
                packing=packing,  # type: ignore[arg-type]
                data_dir=str(folder / "data"),
                validation_fraction=0.0,
                num_workers=0,
                prepare_workers=0,
                epochs=20.0,
            )

        self.data = {packing: datamodule(packing) for packing in ("best_fit", "bucketed", "padded")}
        for data in self.data.values():
            data.setup("fit")

    def write_for_trl(self, file: Path) -> dict[str, float]:
        """The conversations as ids and masks, and what they are like."""
        import numpy as np

        source, _ = self.data["best_fit"]._train["chat"]
        lengths, trained = [], 0
        with file.open("w") as out:
            for index in range(source.num_documents):
                ids, weights = source.document(index)
                mask = (weights > 0).astype(int)
                out.write(json.dumps({"input_ids": ids.tolist(), "completion_mask": mask.tolist()}) + "\n")
                lengths.append(len(ids))
                trained += int(mask.sum())
        return {
            "conversations": len(lengths),
            "mean_length": float(np.mean(lengths)),
            **{f"length_p{q}": float(np.percentile(lengths, q)) for q in (10, 50, 90, 100)},
            "trained_share": trained / sum(lengths),
        }

    def run(self, packing: str, compiled: bool = False) -> Rates:
        """Useful tokens a second of one training, by both clocks."""
        import torch

        from nbg_lightning import LanguageModelConfig, ParallelConfig, SFTModule, WarmupDecay

        torch.compiler.reset()  # each run compiles again, as a separate process would
        data = self.data[packing]
        data.step = 0
        module = SFTModule(
            LanguageModelConfig(**SHAPE),
            parallel=ParallelConfig(compute_dtype="float32", compile=compiled),
            micro_batch_tokens=self.window[packing],
        )
        ends: Ends = []
        our_trainer(self.folder, self.arguments.steps, ends, WarmupDecay(1e-4)).fit(module, datamodule=data)
        rows = data.curriculum.samples_per_step(0)
        source, windows = data._train["chat"]
        lengths = source.lengths()
        samples = data.order.lookup(WARM_UP_STEPS * rows, self.arguments.steps * rows)
        useful = sum(int(lengths[windows[w]].sum()) for w in samples.window.tolist() if w < len(windows))
        return rates(useful, ends, WARM_UP_STEPS)


# -- TRL ---------------------------------------------------------------------------------------------------------------


def trl_process(settings: dict[str, Any]) -> None:
    """TRL's side."""
    answers = begin_peer(settings)
    import torch
    import trl
    from datasets import load_dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(settings["tokenizer"])
    dataset = load_dataset("json", data_files=settings["data"], split="train", cache_dir=settings["folder"])
    budget, forwards, longest = settings["budget"], settings["forwards"], settings["longest"]
    per_step = max(1, round(budget * forwards / (sum(map(len, dataset["input_ids"])) / len(dataset)) / ROWS_OF_TRL))
    sides = {  # the same useful tokens a step, about
        "padded": dict(packing=False, per_device_train_batch_size=ROWS_OF_TRL, gradient_accumulation_steps=per_step),
        "packed": dict(
            packing=True,
            packing_strategy="bfd",
            per_device_train_batch_size=1,  # a forward attends over all its rows at once: more rows are slower
            gradient_accumulation_steps=budget * forwards // longest,
        ),
    }
    if settings["compile"]:  # not padded: every length is compiled separately, which takes longer than the whole run
        sides["packed_compiled"] = {**sides["packed"], "torch_compile": True}

    def train(side: str, ends: Ends, clock: Any) -> Rates:
        useful: list[int] = []
        config = trl.SFTConfig(
            output_dir=settings["folder"],
            max_length=longest,
            max_steps=settings["steps"],
            completion_only_loss=True,
            learning_rate=1e-4,
            **TRL_SETTINGS,
            **sides[side],
        )
        torch.compiler.reset()
        model = LlamaForCausalLM(LlamaConfig(**settings["shape"], attn_implementation="sdpa"))
        trainer = trl.SFTTrainer(model, config, train_dataset=dataset, processing_class=tokenizer, callbacks=[clock])
        collate = trainer.data_collator

        def counting(examples):  # type: ignore[no-untyped-def]
            useful.append(sum(len(example["input_ids"]) for example in examples))
            return collate(examples)

        trainer.data_collator = counting
        trainer.train()
        forwards_a_step = sides[side]["gradient_accumulation_steps"]
        tokens = sum(useful[WARM_UP_STEPS * forwards_a_step : forwards_a_step * settings["steps"]])
        return rates(tokens, ends, WARM_UP_STEPS)

    answer(answers, {"sides": sides}, train)


# -- both --------------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--conversations", type=int, default=2000)
    parser.add_argument("--longest", type=int, default=2048, help="tokens of the longest conversation")
    parser.add_argument("--budget", type=int, default=8192, help="positions per padded forward")
    parser.add_argument("--forwards", type=int, default=1, help="padded forwards per step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--compile", action="store_true", help="run compiled sides too")
    arguments = parser.parse_args()
    if arguments.trl_process:
        trl_process(json.loads(arguments.trl_process))
        return
    begin(arguments)
    from paired import ratio, write_result

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = Ours(folder, arguments)
        about = ours.write_for_trl(folder / "conversations.jsonl")
        sides = {f"ours_{packing}": lambda packing=packing: ours.run(packing) for packing in ours.data}
        if arguments.compile:
            sides["ours_best_fit_compiled"] = lambda: ours.run("best_fit", compiled=True)
        trl = None
        if not arguments.without_trl:
            file, tokenizer = str(folder / "conversations.jsonl"), str(folder / "tokenizer")
            trl = Trl(__file__, arguments, folder=str(folder), shape=SHAPE, data=file, tokenizer=tokenizer)
            # Ours stand between TRL's two: what is compared is measured close together.
            theirs = {f"trl_{side}": lambda side=side: trl.run(side) for side in trl.about["sides"]}
            padded = {name: run for name, run in theirs.items() if "padded" in name}
            sides = {**padded, **sides, **{name: run for name, run in theirs.items() if name not in padded}}
        found = alternate(sides, arguments.repeats)
        efficiency = {packing: data.packing_efficiency["chat"] for packing, data in ours.data.items()}
    results: dict[str, Any] = {
        "data": about,
        "window_efficiency": efficiency,
        "useful_tokens_per_second": found,
    }
    for clock, rate in found.items():
        packed = rate["ours_best_fit"]
        results[f"packed_over_padded_{clock}"] = ratio(packed, rate["ours_padded"])
        results[f"packed_over_bucketed_{clock}"] = ratio(packed, rate["ours_bucketed"])
        if trl is not None:
            best = [max(pair) for pair in zip(rate["trl_padded"], rate["trl_packed"], strict=True)]
            results[f"packed_over_better_trl_{clock}"] = ratio(packed, best)
            if arguments.compile:
                compiled = rate["ours_best_fit_compiled"]
                of_all = [max(each) for each in zip(*(rate[f"trl_{side}"] for side in trl.about["sides"]), strict=True)]
                results[f"compiled_over_better_trl_{clock}"] = ratio(compiled, best)
                results[f"compiled_over_best_trl_compiled_or_not_{clock}"] = ratio(compiled, of_all)
    if trl is not None:
        results["trl"] = trl.about
    write_result("sft", {**settings_of(arguments), "model": SHAPE, "dtype": "float32"}, results)


if __name__ == "__main__":
    main()
