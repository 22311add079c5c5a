"""Completion tokens per second of whole GRPO steps (generate, score, update): ours, and TRL's GRPOTrainer with transformers.

    python benchmarks/performance/grpo.py
    python benchmarks/performance/grpo.py --name grpo_long_prompts --prompts 2 --group 16 --words 290 --new-tokens 64

One model (a 5.2 M-parameter Llama), the same prompts, groups, lengths, reward and loss, float32, the same threads; sides
alternate. Every completion has the full length on both sides, so that TRL has no padding. TRL runs in its own environment,
created by sft.py from requirements-trl.txt, in a process that answers in JSON; its forwards take all rows of a step, or a quarter
of them, and the faster of both is compared. A run is timed from the end of its first step to the end of its last, in wall-clock
time and in processor time of its process.
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

TRL_SIDES = {"trl": 1, "trl_quarters": 4}  # forwards of a step
PARTS = ("engine", "reward", "train", "sync", "trainer_idle", "engine_idle")  # of a step's seconds


def make_questions(number: int, words: int) -> list[dict[str, str]]:
    """Questions with this many words from this Python's docstrings."""
    from nbg_lightning.data import PackageSource

    text = " ".join(PackageSource("stdlib", "docstrings").documents()).split()
    return [{"question": " ".join(text[i * words : (i + 1) * words]), "answer": "-"} for i in range(number)]


def share_of_even(ids: list[int]) -> float:
    """The reward: no work, and different for every answer."""
    return sum(token % 2 == 0 for token in ids) / len(ids)


# -- ours --------------------------------------------------------------------------------------------------------------


class Ours:
    """Our trainer on the questions."""

    def __init__(self, folder: Path, arguments: argparse.Namespace):
        from nbg_lightning import LanguageModelConfig
        from nbg_lightning.core.create import create_model
        from nbg_lightning.core.hf_folder import save_hugging_face
        from nbg_lightning.data import QuestionList, train_bpe
        from nbg_lightning.datamodules.prompts import PromptDataModule

        self.folder, self.arguments = folder, arguments
        questions = make_questions(arguments.prompts * arguments.steps, arguments.words)
        texts = [row["question"] for row in make_questions(4000, 50)]
        tokenizer = train_bpe(texts, SHAPE["vocab_size"], folder / "tokenizer")
        save_hugging_face(create_model(LanguageModelConfig(**SHAPE)), folder / "model", dtype="float32", verify=False)  # type: ignore[arg-type]
        self.data = PromptDataModule(
            {"docstrings": QuestionList(questions)},
            str(tokenizer),
            prompts_per_step=arguments.prompts,
            data_dir=str(folder / "data"),
        )
        self.data.setup("fit")

    def write_for_trl(self, file: Path) -> dict[str, float]:
        """Write the prompts as ids and text, in the order of the steps; returns their statistics."""
        prompts = [prompt.ids for batch in self.data.train_dataloader() for prompt in batch.prompts]
        decode = self.data.tokenizer.decode
        rows = [{"prompt": decode(ids, skip_special_tokens=False), "ids": list(ids)} for ids in prompts]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"prompts": len(prompts), "mean_prompt_tokens": sum(map(len, prompts)) / len(prompts)}

    def run(self, **options: Any) -> Rates:
        """Completion tokens per second of one training run, by both clocks.

        Args:
            **options: further options of the module.
        """
        import lightning.pytorch as pl

        from nbg_lightning import AdamWConfig, GRPOModule, ParallelConfig
        from nbg_lightning.rewards import Reward, RewardResult
        from nbg_lightning.rl import PolicyLossConfig

        class Even(Reward):
            name = "even"

            def score(self, groups: Any) -> list[list[RewardResult]]:
                return [[RewardResult(share_of_even(a.completion.ids)) for a in group.answers] for group in groups]

        class Endless(GRPOModule):
            """No token ends an answer."""

            def sampling(self, n: int, seed: int) -> Any:
                from dataclasses import replace

                return replace(super().sampling(n, seed), stop_ids=())

        ends: Ends = []
        tokens: list[float] = []
        parts: list[dict[str, float]] = []

        class Parts(pl.Callback):
            def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
                metrics = trainer.callback_metrics
                names = [name for name in PARTS if f"time/{name}" in metrics]
                parts.append({name: float(metrics[f"time/{name}"]) for name in names})

            def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
                tokens.append(sum(len(a.completion.ids) for r in module.last_rollouts for a in r.answers))

        arguments = self.arguments
        module = Endless(
            Even(),
            base_weights=str(self.folder / "model"),
            parallel=ParallelConfig(compute_dtype="float32"),
            optimizer=AdamWConfig(lr=1e-6),
            micro_batch_tokens=arguments.budget,
            group_size=arguments.group,
            max_new_tokens=arguments.new_tokens,
            loss=PolicyLossConfig("grpo", mask_truncated=False),
            **options,
        )
        self.data.step = 0
        our_trainer(self.folder, arguments.steps, ends, Parts()).fit(module, datamodule=self.data)
        self.parts = {name: sum(part[name] for part in parts[1:]) / (len(parts) - 1) for name in parts[0]}
        made = sum(tokens[2:]) + sum(len(a.completion.ids) for r in module.last_rollouts for a in r.answers)
        return rates(int(made), ends)


# -- TRL ---------------------------------------------------------------------------------------------------------------


def trl_process(settings: dict[str, Any]) -> None:
    """The process of TRL's side."""
    answers = begin_peer(settings)
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(settings["folder"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    rows = [json.loads(line) for line in Path(settings["data"]).read_text().splitlines()]
    ids_of = {row["prompt"]: row["ids"] for row in rows}
    dataset = Dataset.from_list([{"prompt": row["prompt"]} for row in rows])

    def train(side: str, ends: Ends, clock: Any) -> Rates:
        forwards = TRL_SIDES[side]
        made: list[int] = []

        def reward(completion_ids, **_):  # type: ignore[no-untyped-def]
            made.append(sum(map(len, completion_ids)))
            return [share_of_even(ids) for ids in completion_ids]

        samples = settings["prompts"] * settings["group"]
        config = trl.GRPOConfig(
            output_dir=str(folder / "trl"),
            max_steps=settings["steps"],
            num_generations=settings["group"],
            per_device_train_batch_size=samples // forwards,
            gradient_accumulation_steps=forwards,
            generation_batch_size=samples,
            max_completion_length=settings["new_tokens"],
            generation_kwargs={"min_new_tokens": settings["new_tokens"]},
            temperature=1.0,
            top_k=0,
            loss_type="grpo",
            beta=0.0,
            shuffle_dataset=False,
            learning_rate=1e-6,
            **TRL_SETTINGS,
        )
        load = AutoModelForCausalLM.from_pretrained
        model = load(folder / "model", dtype=torch.float32, attn_implementation="sdpa")
        trainer = trl.GRPOTrainer(
            model=model,
            reward_funcs=reward,
            args=config,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[clock],
        )
        tokenize = trainer._tokenize_prompts

        def ours(prompts):  # type: ignore[no-untyped-def]
            """The ids of our side, which joins the tokens of the chat format and of the text."""
            return [ids_of[prompt] for prompt in prompts], *tokenize(prompts)[1:]

        trainer._tokenize_prompts = ours
        trainer.train()
        tokens = sum(made[1:])
        if tokens != (settings["steps"] - 1) * samples * settings["new_tokens"]:
            raise ValueError(f"TRL made {tokens} tokens in {len(made)} generations: not what our side makes")
        return rates(tokens, ends)

    answer(answers, {"forwards": TRL_SIDES}, train)


# -- both --------------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--name", default="grpo", help="name of the result")
    parser.add_argument("--prompts", type=int, default=8, help="questions per step")
    parser.add_argument("--group", type=int, default=8, help="answers per question")
    parser.add_argument("--words", type=int, default=24, help="words per question")
    parser.add_argument("--new-tokens", type=int, default=128, help="tokens per answer")
    parser.add_argument("--budget", type=int, default=4096, help="positions of our forwards")
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.trl_process:
        trl_process(json.loads(arguments.trl_process))
        return
    begin(arguments)
    from paired import ratio, write_result

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = Ours(folder, arguments)
        about = ours.write_for_trl(folder / "prompts.jsonl")
        sides: dict[str, Any] = {"ours": ours.run}
        trl = None
        if not arguments.without_trl:
            trl = Trl(__file__, arguments, folder=str(folder), data=str(folder / "prompts.jsonl"))
            first, second = TRL_SIDES  # ours stands between TRL's two: what is compared is measured close together
            sides = {first: lambda: trl.run(first), **sides, second: lambda: trl.run(second)}
        found = alternate(sides, arguments.repeats)
    results: dict[str, Any] = {"data": about, "seconds_of_our_step": ours.parts, "completion_tokens_per_second": found}
    if trl is not None:
        for clock, rate in found.items():
            best = [max(pair) for pair in zip(*(rate[name] for name in TRL_SIDES), strict=True)]
            results[f"ours_over_better_trl_{clock}"] = ratio(rate["ours"], best)
        results["trl"] = trl.about
    write_result(arguments.name, {**settings_of(arguments), "model": SHAPE, "dtype": "float32"}, results)


if __name__ == "__main__":
    main()
