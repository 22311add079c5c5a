"""What the experiments on two domains share: sums (one turn), and purchases (calls of two tools over several turns).

The sums, their split, the tokenizer and the teacher are the same in all runs, as a published set and a model that one has are.
A seed is of the model: its weights, the texts and conversations that it is shown, the order of data and all drawn answers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import Charges
from pass_rate_bands import announces
from quality_order import ARMS as ORDERS
from quality_order import clean_and_damaged, table
from stages import VOCAB_SIZE, Stages, draw_sums, questions

from nbg_lightning.data.folder_lock import folder_lock
from nbg_lightning.testing.prices import NUMBERS, THINGS, PriceQuestions, Purchase, price, purchases, times
from nbg_lightning.testing.sums import WorkedSum

DOMAINS = ("sums", "purchases")
LENGTH, STEP_TOKENS = 512, 2048
GROUP, PROMPTS, MAX_NEW_TOKENS = 8, 16, 96
SPLIT_SEED = 0  # of the sums, the tokenizer and the teacher
WRONG = 0.25  # share of wrong lines of damaged texts
SHARES = {"sums": 1 / 3, "purchases": 2 / 3}  # of pretraining's tokens: a call is longer than a step of a sum
SETTINGS: dict[str, Any] = {
    "student": dict(
        hidden_size=128, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4
    ),
    "teacher": dict(
        hidden_size=160, intermediate_size=480, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=5
    ),
    "base_steps": 400,
    "sft_steps": 1000,
    "sums": {"test": 200, "rl": 300, "sft": 2500},
    "purchases": 2500,
    "whole": 0.25,  # share of purchases that SFT shows to their end
    "lr": 3e-4,  # of GRPO
    "then_steps": 60,  # of SFT on the chosen answers and of DPD
    "then_lr": 1e-3,
    "dpd_lr": 3e-4,
}


# -- texts and conversations -------------------------------------------------------------------------------------------


def sum_text(draw: random.Random, wrong: float) -> str:
    """Forty steps of sums; a share of the results is wrong."""
    lines = []
    for _ in range(40):
        total, sign, digit = draw.randrange(19), draw.choice("+-"), draw.randrange(10)
        right = total + digit if sign == "+" else total - digit
        found = draw.choice([each for each in range(-9, 28) if each != right]) if draw.random() < wrong else right
        lines.append(f"{total:02d}{sign}{digit}={found:02d}")
    return "\n".join(lines)


def call_text(draw: random.Random, wrong: float) -> str:
    """Ten calls of tools; a share of them has wrong arguments."""
    lines = []
    for _ in range(10):
        each = draw.choice(purchases("train"))
        made = each
        if draw.random() < wrong:
            made = Purchase(draw.choice(THINGS), draw.choice(NUMBERS), draw.choice(NUMBERS))
        name, arguments, result = draw.choice(made.calls)
        call = json.dumps({"name": name, "arguments": arguments})
        lines.append(f"{each.question}\n{call}\n{result}\nThe answer is {result}.")
    return "\n".join(lines)


def announced(answer: str) -> str:
    """As `MathReward` wants answers to be given."""
    return f"The answer is {answer}."


def worked(made: Sequence[WorkedSum], always: bool, draw: random.Random) -> list[dict[str, Any]]:
    """Conversations about sums, all of which announce their answers, or as many as the signs of the sum say."""
    rows = []
    for each in made:
        asked, answer = each.conversation
        said = always or announces(each, draw)
        rows.append({"messages": [asked, {**answer, "content": announced(each.answer) if said else each.answer}]})
    return rows


def bought(number: int, whole: float, draw: random.Random) -> list[dict[str, Any]]:
    """Conversations about purchases, a share of them to their end; the others answer too early."""
    return [
        {"messages": draw.choice(purchases("train")).way(2 if draw.random() < whole else draw.randrange(2))}
        for _ in range(number)
    ]


# -- models ------------------------------------------------------------------------------------------------------------


class Domains(Stages):
    """Models that are trained on both domains.

    Args:
        folder: of all that is made.
        seed: of the models.
        settings: of the budget.
    """

    def __init__(self, folder: Path, seed: int, settings: Mapping[str, Any]):
        self.settings = settings
        self.sums = draw_sums(settings["sums"], SPLIT_SEED)
        always = random.Random("tokenizer")
        rows = [*worked(self.sums["sft"], True, always), *bought(300, 0.5, always)]
        super().__init__(folder, seed, STEP_TOKENS, [str(turn) for row in rows for turn in row["messages"]])

    def shape(self, name: str) -> Any:
        """Of ``student`` or ``teacher``."""
        from nbg_lightning import LanguageModelConfig

        return LanguageModelConfig(
            vocab_size=VOCAB_SIZE,
            head_dim=32,
            max_position_embeddings=LENGTH,
            initializer_range=0.06,
            tie_word_embeddings=True,
            **self.settings[name],
        )

    def pretrained(self, name: str, shape: str, clean: Sequence[float]) -> str:
        """After pretraining on texts of both domains, of which these shares are clean, in the parts of `quality_order.py`."""
        from nbg_lightning.data import InMemory

        tokens = STEP_TOKENS * self.settings["base_steps"]
        draw = random.Random(f"texts {self.seed}")
        writers: dict[str, Callable[[random.Random, float], str]] = {"sums": sum_text, "purchases": call_text}
        sources = {}
        for domain, write in writers.items():
            number = round(SHARES[domain] * tokens / 250)  # texts have 320 tokens and more
            sources[f"{domain}-clean"] = InMemory([write(draw, 0.0) for _ in range(number)])
            sources[f"{domain}-damaged"] = InMemory([write(draw, WRONG) for _ in range(number)])
        return self.pretrain(name, self.shape(shape), sources, self.curriculum(clean))

    def curriculum(self, clean: Sequence[float]) -> list[Any]:
        """That of `quality_order.py`, with both domains in each share."""

        def mixture(share: float) -> dict[str, float]:
            kinds = clean_and_damaged(share).items()
            return {f"{domain}-{kind}": part * own for domain, part in SHARES.items() for kind, own in kinds}

        return table(clean, self.settings["base_steps"], STEP_TOKENS, 3e-3, mixture)

    def shown(self, name: str, base: str, always: bool, steps: int) -> str:
        """After SFT on conversations of both domains, in equal numbers."""
        draw = random.Random(f"shown {self.seed}")
        rows = worked(self.sums["sft"], always, draw)
        rows += bought(self.settings["purchases"], self.settings["whole"], draw)
        draw.shuffle(rows)
        return self.sft(name, base, rows, steps, 3e-3)


class Teacher(Domains):
    """A larger model, whose SFT is longer and announces all sums' answers."""

    @cached_property
    def weights(self) -> str:
        """After SFT."""
        base = self.pretrained("base", "teacher", ORDERS["FG"]["clean"])
        return self.shown("sft", base, True, 2 * self.settings["sft_steps"])


class Seed(Domains):
    """A student of one seed.

    Args:
        folder: of the experiment's runs.
        seed: of the student.
        settings: of the budget.
    """

    def __init__(self, folder: Path, seed: int, settings: Mapping[str, Any]):
        super().__init__(folder / f"shared-{seed}", seed, settings)
        self.teachers_folder = folder / "teacher"

    @cached_property
    def teacher(self) -> str:
        """Trained once, by whichever run comes first."""
        with folder_lock(self.teachers_folder, "trains the teacher"):
            return Teacher(self.teachers_folder, SPLIT_SEED, self.settings).weights

    def start(self, order: str) -> str:
        """After pretraining in an order of `quality_order.py`, and SFT, which announces some of the sums' answers."""
        name = order.replace(" ", "-")
        base = self.pretrained(f"base-{name}", "student", ORDERS[order]["clean"])
        return self.shown(f"start-{name}", base, False, self.settings["sft_steps"])

    # -- single-turn stages on sums ------------------------------------------------------------------------------------

    def pairs(self, weights: str) -> list[dict[str, Any]]:
        """Worked sums that announce their answers, against wrong answers of a model: at most two a sum."""
        from nbg_lightning.engines import Sampling
        from nbg_lightning.rewards.math import MathReward

        sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, n=4, seed=self.seed)
        drawn = self.draw("drawn", weights, questions(self.sums["rl"]), MathReward(workers=1), sampling)
        rows = []
        for each, answers, right in zip(self.sums["rl"], drawn["answers"], drawn["right"], strict=True):
            [asked, chosen] = worked([each], True, random.Random())[0]["messages"]
            wrong = [
                answer for answer, own in zip(answers, right, strict=True) if not own and answer["content"].strip()
            ]
            rows += [{"prompt": [asked], "chosen": [chosen], "rejected": [rejected]} for rejected in wrong[:2]]
        return rows

    def chosen(self, name: str, weights: str) -> str:
        """After SFT on the chosen answers."""
        rows = [{"messages": [*pair["prompt"], *pair["chosen"]]} for pair in self.pairs(weights)]
        return self.sft(name, weights, rows, self.settings["then_steps"], self.settings["then_lr"])

    def dpd(self, name: str, weights: str) -> str:
        """After DPD with all of its terms."""
        from nbg_lightning import DPDModule, PreferenceDataModule, WarmupDecay
        from nbg_lightning.data import PairList

        tokens = self.settings["then_steps"] * STEP_TOKENS
        data = PreferenceDataModule({"pairs": PairList(self.pairs(weights))}, tokens=tokens, **self.data_options())
        module = DPDModule(base_weights=weights, teacher=self.teacher, **self.options())
        return self.fit(name, module, data, [WarmupDecay(self.settings["dpd_lr"], 0.1)])[0]

    # -- reinforcement learning ----------------------------------------------------------------------------------------

    def source(self, domain: str, test: bool) -> Any:
        """Questions of a domain."""
        from nbg_lightning.data import QuestionList

        if domain == "purchases":
            return PriceQuestions(split="test" if test else "train")
        return QuestionList(questions(self.sums["test" if test else "rl"]))

    def pool(self, domain: str, which: int | None) -> Any:
        """A domain's questions for training, with the weight of each other domain's: all, or every other one from the first or
        the second.
        """
        source = self.source(domain, False)
        if which is not None:
            from nbg_lightning.data import QuestionList

            source = QuestionList([row for _, row in source.rows()][which::2])
        source.weight = 1.0
        return source

    def module(self, weights: str) -> Any:
        """GRPO; the tools can be called in every answer."""
        from nbg_lightning import GRPOModule
        from nbg_lightning.environments import ToolEnvironment
        from nbg_lightning.rewards.math import MathReward

        return GRPOModule(
            MathReward(workers=1),
            base_weights=weights,
            environment=ToolEnvironment([price, times], show_tools=False),
            group_size=GROUP,
            max_new_tokens=MAX_NEW_TOKENS,
            validation_samples=4,
            **{**self.options(), "micro_batch_tokens": 8192},
        )

    def grpo(
        self,
        name: str,
        weights: str,
        domains: Sequence[str],
        steps: int,
        charges: Charges,
        prompts: int = PROMPTS,
        which: int | None = None,
    ) -> str:
        """Some steps on questions of some domains, in equal shares, of a pool."""
        from nbg_lightning import PromptDataModule

        data = PromptDataModule(
            {domain: self.pool(domain, which) for domain in domains},
            str(self.tokenizer),
            prompts,
            steps=steps,
            data_dir=str(self.folder / "data"),
            seed=self.seed,
        )
        checkpoint, found = self.reinforce(name, self.module(weights), data, self.settings["lr"])
        charges.forward("answers", self.shape("student"), found["tokens"], LENGTH)
        charges.train("steps of GRPO", self.shape("student"), found["tokens"], LENGTH)
        return checkpoint

    def measure(self, name: str, weights: str, domain: str) -> float:
        """Share of the test questions of a domain that are right, over four answers each."""

        def run() -> dict[str, Any]:
            from nbg_lightning import PromptDataModule, Trainer

            data = PromptDataModule(
                {"unused": self.source(domain, False)},
                str(self.tokenizer),
                validation_sources={domain: self.source(domain, True)},
                validation_prompts=200,
                data_dir=str(self.folder / "data"),
                seed=self.seed,
            )
            trainer = Trainer(
                accelerator="cpu",
                devices=1,
                default_root_dir=str(self.folder / name),
                logger=False,
                enable_progress_bar=False,
            )
            [metrics] = trainer.validate(self.module(weights), datamodule=data, verbose=False)
            return {"metrics": metrics}

        return float(self.once(f"test-{domain}-{name}", run)["metrics"]["val/pass_rate/mean"])
