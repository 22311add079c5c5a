"""lm-eval's tasks give the same numbers on two ranks as on one: choices, texts and written answers. Needs the extra ``eval``."""

import os
from pathlib import Path

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'nbg-lightning[eval]'")

from nbg_lightning.core.config import ParallelConfig
from nbg_lightning.datamodules.benchmark import BenchmarkDataModule
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.evaluation import Arithmetic, HarnessTasks, Suite
from nbg_lightning.modules.pretrain import PretrainModule
from nbg_lightning.testing import SMALL_SHAPE, run_ranks
from nbg_lightning.testing.benchmarks import character_tokenizer, write_rows
from nbg_lightning.trainer import Trainer

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {file}}}}}
validation_split: validation
output_type: {kind}
{rest}
"""
NAMES = ["nbg_choices", "nbg_texts", "nbg_sums"]


def measured(folder, ranks):
    """The harness through the Trainer, on live weights that do not depend on the number of ranks."""
    folder = Path(folder)
    os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        default_root_dir=str(folder / f"ranks-{ranks}"),
        logger=False,
        enable_progress_bar=False,
    )
    suite = Suite(
        [HarnessTasks(tasks=NAMES, include_path=str(folder / "tasks")), Arithmetic(count=3)],
        sampling=Sampling(max_new_tokens=4, temperature=0.0),
    )
    module = PretrainModule(SMALL_SHAPE, parallel=ParallelConfig(compute_dtype="float32"))
    data = BenchmarkDataModule(suite, str(folder / "tokenizer"))
    trainer.test(module, datamodule=data, verbose=False)
    return data.result.metrics


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness")
    character_tokenizer(folder / "tokenizer")
    # Numbers of documents that two ranks cannot share evenly: the harness lets the shorter one wait in step.
    choices = [{"q": f"pick {i}", "options": ["one", "three hundred", str(i)], "gold": i % 3} for i in range(11)]
    write_rows(folder / "choices.jsonl", choices)
    write_rows(folder / "texts.jsonl", [{"text": " ".join(map(str, range(n)))} for n in (3, 30, 60)])
    write_rows(folder / "sums.jsonl", [{"q": f"{i} + {i} =", "a": str(2 * i)} for i in range(5)])
    metrics = "metric_list: [{metric: acc}, {metric: acc_norm}]"
    kinds = {
        "choices": (
            "multiple_choice",
            f'doc_to_text: "{{{{q}}}}"\ndoc_to_choice: options\ndoc_to_target: gold\n{metrics}',
        ),
        "texts": (
            "loglikelihood_rolling",
            'doc_to_text: ""\ndoc_to_target: "{{text}}"\nmetric_list: [{metric: bits_per_byte}]',
        ),
        "sums": (
            "generate_until",
            'doc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\nmetric_list: [{metric: exact_match}]\n'
            'generation_kwargs: {until: ["="], max_gen_toks: 6}',
        ),
    }
    (folder / "tasks").mkdir()
    for name, (kind, rest) in kinds.items():
        task = TASK.format(name=f"nbg_{name}", file=folder / f"{name}.jsonl", kind=kind, rest=rest)
        (folder / "tasks" / f"{name}.yaml").write_text(task)
    (one,) = run_ranks(measured, 1, str(folder), 1, folder=folder)
    return one, run_ranks(measured, 2, str(folder), 2, folder=folder)


def test_one_rank_and_two_have_the_same_numbers(found):
    one, (first, second) = found
    names = ["nbg_choices/acc", "nbg_choices/acc_norm", "nbg_texts/bits_per_byte", "nbg_sums/exact_match"]
    assert {f"benchmark/lm_eval/{name}" for name in names} <= set(one)
    assert first == second
    assert first == pytest.approx(one, rel=1e-6)
    assert 0 < one["benchmark/lm_eval/nbg_choices/acc"] < 1, "chance level: the comparison could fail"
