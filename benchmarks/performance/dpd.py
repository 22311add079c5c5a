"""Useful tokens per second of preference training on pairs of varying lengths: DPO, DPD, and TRL's DPOTrainer.

    python benchmarks/performance/dpd.py
    python benchmarks/performance/dpd.py --name dpd_half_prompts --prompt-share 0.5

One model (that of sft.py: a 5.2 M-parameter Llama), the same pairs with the same ids, float32, the same threads; sides
alternate. Ours: DPO alone, with a live and with a cached reference; DPD with cached teacher and reference, and with both live
(the teacher has the student's shape). TRL: DPOTrainer with a live reference, and with precomputed values, in the environment
created by sft.py, in a process that answers in JSON. Useful tokens are those of prompts and answers, without padding; the prompt
counts with each answer. A run is timed from the end of its first step to the end of its last, in wall-clock time and in
processor time of its process. The time to build the cache and its bytes per token are recorded too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from nbg_lightning.teachers.cache import TeacherCache

PAIRS_OF_TRL = 8  # of a padded forward: the trainer's default batch
BETA = 0.1


def make_pairs(number: int, longest: int, prompt_share: float | None) -> list[dict[str, str]]:
    """A prompt and two answers from this Python's docstrings; sequence lengths are log-normal (median 220, sigma 0.7).

    A prompt has the given share of the tokens of its sequences, or 0.1 to 0.5 of the shorter one.
    """
    import numpy as np

    from nbg_lightning.data import PackageSource

    random = np.random.default_rng(0)
    words = " ".join(PackageSource("stdlib", "docstrings").documents()).split()
    begin = 0

    def text(tokens: float) -> str:
        nonlocal begin
        size = max(2, int(tokens * 0.56))  # words: a word of this text is 1.8 tokens
        begin = (begin + size) % (len(words) - longest)
        return " ".join(words[begin : begin + size])

    found = []
    for chosen, rejected in np.clip(np.exp(random.normal(np.log(220), 0.7, (number, 2))), 32, longest):
        if prompt_share is None:
            prompt = min(chosen, rejected) * random.uniform(0.1, 0.5)
            answers = chosen - prompt, rejected - prompt
        else:
            prompt = prompt_share * (chosen + rejected) / 2
            answers = (1 - prompt_share) * chosen, (1 - prompt_share) * rejected
        sides = {"chosen": text(answers[0]), "rejected": text(answers[1])}
        found.append({"prompt": text(prompt), **sides})
    return found


# -- ours --------------------------------------------------------------------------------------------------------------

OURS: dict[str, dict[str, Any]] = {  # cached: what the data comes with
    "ours_dpo": dict(cached=None, w_pos=0.0, w_neg=0.0),
    "ours_dpo_cached_reference": dict(cached="reference", w_pos=0.0, w_neg=0.0),
    "ours_dpd_cached": dict(cached="teacher"),
    "ours_dpd_live": dict(cached=None, live=True),
}


class Ours:
    """Our trainer on the pairs."""

    def __init__(self, folder: Path, arguments: argparse.Namespace):
        from nbg_lightning import LanguageModelConfig, PreferenceDataModule
        from nbg_lightning.core import create_model
        from nbg_lightning.core.hf_folder import save_hugging_face
        from nbg_lightning.data import PairList, Tokenizer, train_bpe
        from nbg_lightning.teachers.build import build_cache
        from nbg_lightning.teachers.targets import FrozenModel

        self.folder, self.arguments = folder, arguments
        pairs = make_pairs(arguments.pairs, arguments.longest, arguments.prompt_share)
        texts = [text for row in pairs for text in row.values()]
        tokenizer = train_bpe(texts * 2, SHAPE["vocab_size"], folder / "tokenizer")
        for seed, name in enumerate(("student", "teacher")):
            model = create_model(LanguageModelConfig(**SHAPE), seed=seed)
            save_hugging_face(model, folder / name, Tokenizer(tokenizer), dtype="float32", verify=False)

        def datamodule(cache: str | None) -> PreferenceDataModule:
            made = PreferenceDataModule(
                {"pairs": PairList(pairs)},
                str(tokenizer),
                sequence_length=arguments.budget,
                tokens_per_step=arguments.budget,
                max_length=arguments.longest,
                data_dir=str(folder / "data"),
                validation_fraction=0.0,
                num_workers=0,
                prepare_workers=0,
                epochs=50.0,
                cache=cache,
            )
            made.setup("fit")
            return made

        plain = datamodule(None)

        def cache(k: int) -> TeacherCache:
            return build_cache(
                plain.sequences,
                FrozenModel(str(folder / "teacher")),
                FrozenModel(str(folder / "student")),
                folder / "cache",
                plain.tokenizer.fingerprint,
                plain.template_identity,
                SHAPE["vocab_size"],
                k,
                progress=False,
            )

        reference = cache(1)  # the least that a cache can hold: DPO alone reads no teacher
        begin = time.perf_counter(), time.process_time()
        self.cache = cache(arguments.k)
        wall, processor = time.perf_counter() - begin[0], time.process_time() - begin[1]
        self.about_cache = {
            "k": arguments.k,
            "bytes_per_token": self.cache.bytes_per_token,
            "trained_tokens": self.cache.num_tokens,
            "built_tokens_per_second": {
                "wall": self.cache.num_tokens / wall,
                "processor": self.cache.num_tokens / processor,
            },
        }
        folders = {"reference": reference.folder, "teacher": self.cache.folder}
        self.data = {None: plain, **{name: datamodule(str(place)) for name, place in folders.items()}}

    def write_for_trl(self, file: Path) -> dict[str, float]:
        """Write the pairs as ids; returns their statistics."""
        import numpy as np

        source, _ = self.data[None]._train["pairs"]
        lengths, trained = [], 0
        with file.open("w") as out:
            for index in range(source.num_documents):
                pair = source.pair(index)
                prompt = int(np.argmax(pair.chosen_mask))
                row = {
                    "prompt_ids": pair.chosen_ids[:prompt].tolist(),
                    "chosen_ids": pair.chosen_ids[prompt:].tolist(),
                    "rejected_ids": pair.rejected_ids[prompt:].tolist(),
                }
                out.write(json.dumps(row) + "\n")
                lengths += [len(pair.chosen_ids), len(pair.rejected_ids)]
                trained += int(pair.chosen_mask.sum() + pair.rejected_mask.sum())
        return {
            "pairs": source.num_documents,
            "mean_length": float(np.mean(lengths)),
            **{f"length_p{q}": float(np.percentile(lengths, q)) for q in (10, 50, 90, 100)},
            "trained_share": trained / sum(lengths),
        }

    def run(self, side: str) -> dict[str, float]:
        """Useful tokens per second of one training run, by both clocks."""

        from nbg_lightning import DPDModule, ParallelConfig, WarmupDecay

        settings = dict(OURS[side])
        data = self.data[settings.pop("cached")]
        if settings.pop("live", False):
            settings["teacher"] = str(self.folder / "teacher")
        data.step = 0
        ends: Ends = []
        module = DPDModule(
            base_weights=str(self.folder / "student"),
            beta=BETA,
            parallel=ParallelConfig(compute_dtype="float32"),
            micro_batch_tokens=self.arguments.budget,
            **settings,
        )
        our_trainer(self.folder, self.arguments.steps, ends, WarmupDecay(1e-5)).fit(module, datamodule=data)
        rows = data.curriculum.samples_per_step(0)
        source, windows = data._train["pairs"]
        lengths = source.lengths()
        samples = data.order.lookup(rows, self.arguments.steps * rows)
        useful = sum(int(lengths[windows[w]].sum()) for w in samples.window.tolist() if w < len(windows))
        return rates(useful, ends)


# -- TRL ---------------------------------------------------------------------------------------------------------------


def trl_process(settings: dict[str, Any]) -> None:
    """The process of TRL's side."""
    answers = begin_peer(settings)
    import torch
    import trl
    from datasets import Dataset, load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(settings["folder"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    dataset = load_dataset("json", data_files=settings["data"], split="train", cache_dir=str(folder))
    # Precomputed references take no time in training, whatever their values.
    precomputed = dataset.add_column("ref_chosen_logps", [-100.0] * len(dataset))
    precomputed = precomputed.add_column("ref_rejected_logps", [-100.0] * len(dataset))
    placeholder = Dataset.from_list([{"prompt": "a ", "chosen": "b", "rejected": "c"}] * PAIRS_OF_TRL)

    def train(side: str, ends: Ends, clock: Any) -> Rates:
        useful: list[int] = []
        config = trl.DPOConfig(
            output_dir=str(folder / "trl"),
            beta=BETA,
            max_length=settings["longest"],
            max_steps=settings["steps"],
            per_device_train_batch_size=PAIRS_OF_TRL,
            gradient_accumulation_steps=1,
            learning_rate=1e-5,
            **TRL_SETTINGS,
        )
        load = AutoModelForCausalLM.from_pretrained
        model = load(folder / "student", dtype=torch.float32, attn_implementation="sdpa")
        trainer = trl.DPOTrainer(
            model=model, args=config, train_dataset=placeholder, processing_class=tokenizer, callbacks=[clock]
        )
        trainer.train_dataset = dataset  # the ids that our side has
        if side == "precomputed":
            trainer.train_dataset, trainer.precompute_ref_logps, trainer.ref_model = precomputed, True, None
        collate = trainer.data_collator

        def counting(examples):  # type: ignore[no-untyped-def]
            lengths = [
                2 * len(example["prompt_ids"]) + len(example["chosen_ids"]) + len(example["rejected_ids"])
                for example in examples
            ]
            useful.append(sum(lengths))
            return collate(examples)

        trainer.data_collator = counting
        trainer.train()
        return rates(sum(useful[1 : settings["steps"]]), ends)

    answer(answers, {"pairs_a_forward": PAIRS_OF_TRL}, train)


# -- both --------------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--name", default="dpd", help="name of the result")
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument(
        "--prompt-share", type=float, help="share of a sequence's tokens; by default 0.1 to 0.5 of the shorter one"
    )
    parser.add_argument("--longest", type=int, default=512, help="tokens of the longest sequence")
    parser.add_argument("--budget", type=int, default=4096, help="positions of a packed step: about TRL's eight pairs")
    parser.add_argument("-k", type=int, default=64, help="number of ids per token in the cache")
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.trl_process:
        trl_process(json.loads(arguments.trl_process))
        return
    begin(arguments)
    from paired import ratio, write_result

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours = Ours(folder, arguments)
        about = ours.write_for_trl(folder / "pairs.jsonl")
        sides: dict[str, Any] = {name: lambda name=name: ours.run(name) for name in OURS}
        trl = None
        if not arguments.without_trl:
            trl = Trl(__file__, arguments, folder=str(folder), data=str(folder / "pairs.jsonl"))
            # Ours stand between TRL's two: what is compared is measured close together.
            sides = {"trl_dpo": lambda: trl.run("live"), **sides, "trl_dpo_precomputed": lambda: trl.run("precomputed")}
        found = alternate(sides, arguments.repeats)
        efficiency = ours.data[None].packing_efficiency["pairs"]
    results: dict[str, Any] = {
        "data": about,
        "cache": ours.about_cache,
        "window_efficiency": efficiency,
        "useful_tokens_per_second": found,
    }
    for clock, rate in found.items():
        results[f"dpd_cached_over_dpo_cached_reference_{clock}"] = ratio(
            rate["ours_dpd_cached"], rate["ours_dpo_cached_reference"]
        )
        results[f"dpd_cached_over_dpo_{clock}"] = ratio(rate["ours_dpd_cached"], rate["ours_dpo"])
        results[f"dpd_live_over_dpo_{clock}"] = ratio(rate["ours_dpd_live"], rate["ours_dpo"])
        if trl is not None:
            results[f"dpo_over_trl_{clock}"] = ratio(rate["ours_dpo"], rate["trl_dpo"])
            results[f"dpo_over_trl_both_without_reference_{clock}"] = ratio(
                rate["ours_dpo_cached_reference"], rate["trl_dpo_precomputed"]
            )
    if trl is not None:
        results["trl"] = trl.about
    write_result(arguments.name, {**settings_of(arguments), "model": SHAPE, "dtype": "float32"}, results)


if __name__ == "__main__":
    main()
