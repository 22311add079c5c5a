"""lm-eval's tasks on our engine and scorer, against its own Hugging Face back end. Needs the extra ``eval``."""

import json

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'nbg-lightning[eval]'")

from lm_eval import evaluator
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from nbg_lightning.core.create import create_model
from nbg_lightning.core.weights import load_base_weights, read_shape
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.evaluation import HarnessTasks, LogLikelihoodScorer, Suite
from nbg_lightning.evaluation.lm_eval import HarnessModel, evaluate_tasks
from nbg_lightning.testing.benchmarks import character_tokenizer, write_rows

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {file}}}}}
validation_split: validation
output_type: {kind}
{rest}
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm_eval")
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=128, initializer_range=0.3,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer = character_tokenizer(folder / "model", bos=False)
    choices = [{"q": f"pick {i}", "options": ["one", "three hundred", str(i)], "gold": i % 3} for i in range(12)]
    write_rows(folder / "choices.jsonl", choices)
    write_rows(folder / "texts.jsonl", [{"text": " ".join(map(str, range(n)))} for n in (3, 30, 120)])
    write_rows(folder / "sums.jsonl", [{"q": f"{i} + {i} =", "a": str(2 * i)} for i in range(6)])
    tasks = folder / "tasks"
    tasks.mkdir()
    rest = 'doc_to_text: "{{q}}"\ndoc_to_choice: options\ndoc_to_target: gold\nmetric_list: [{metric: acc}, {metric: acc_norm}]'
    rows = {"nbg_choices": ("choices", "multiple_choice", rest)}
    rest = (
        'doc_to_text: ""\ndoc_to_target: "{{text}}"\nmetric_list: [{metric: bits_per_byte}, {metric: word_perplexity}]'
    )
    rows["nbg_texts"] = ("texts", "loglikelihood_rolling", rest)
    rest = 'doc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\nmetric_list: [{metric: exact_match}]\n'
    rest += 'generation_kwargs: {until: ["="], max_gen_toks: 12}'
    rows["nbg_sums"] = ("sums", "generate_until", rest)
    for name, (file, kind, rest) in rows.items():
        (tasks / f"{name}.yaml").write_text(TASK.format(name=name, file=folder / f"{file}.jsonl", kind=kind, rest=rest))
    model = create_model(read_shape(folder / "model"))
    load_base_weights(model, folder / "model")
    engine = NativeEngine(model, tokenizer.decode)
    ours = HarnessModel(engine, LogLikelihoodScorer(model), tokenizer, window=128)
    theirs = HFLM(
        pretrained=LlamaForCausalLM.from_pretrained(folder / "model"), max_length=128, batch_size=4,
        tokenizer=AutoTokenizer.from_pretrained(folder / "model"), prefix_token_id=2,
    )  # fmt: skip
    yield ours, theirs, tasks, engine, tokenizer
    patch.undo()


NAMES = ["nbg_choices", "nbg_texts", "nbg_sums"]


def test_numbers_equal_the_harness_own_back_end(both):
    ours, theirs, tasks, *_ = both
    found = evaluate_tasks(ours, NAMES, str(tasks))
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    whole = evaluator.evaluate(lm=theirs, task_dict=manager.load(NAMES), bootstrap_iters=0, log_samples=False)
    expected = {
        f"{task}/{name.partition(',')[0]}": value
        for task, metrics in whole["results"].items()
        for name, value in metrics.items()
        if "," in name and "stderr" not in name
    }
    assert found == pytest.approx(expected, rel=1e-5)
    assert {"nbg_choices/acc", "nbg_choices/acc_norm", "nbg_texts/bits_per_byte", "nbg_sums/exact_match"} <= set(found)


def test_log_likelihoods_and_texts_equal_one_by_one(both):
    ours, theirs, *_ = both
    pairs = [("pick one", " three"), ("a b ", "c"), ("", "abc"), ("long " * 40, "end")]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    for mine, other in zip(
        ours.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True), strict=True
    ):
        assert mine[0] == pytest.approx(other[0], abs=1e-4)
        assert mine[1] == other[1]
    asked = [
        Instance("generate_until", {}, (text, {"until": ["="], "max_gen_toks": 12}), 0) for text in ("1 + 1", "abc")
    ]
    assert ours.generate_until(asked) == theirs.generate_until(asked, disable_tqdm=True)
    # No periodic text: where two windows have the same input, lm-eval 0.4.13 gives the one the numbers of the other.
    texts = [Instance("loglikelihood_rolling", {}, (" ".join(map(str, range(n))),), 0) for n in (3, 120)]
    assert ours.loglikelihood_rolling(texts) == pytest.approx(
        theirs.loglikelihood_rolling(texts, disable_tqdm=True), abs=1e-3
    )


def test_as_a_part_of_a_suite_without_a_trace(both):
    _, _, tasks, engine, tokenizer = both
    torch.manual_seed(3)
    before = torch.get_rng_state()
    suite = Suite([HarnessTasks(tasks=["nbg_choices"], include_path=str(tasks), limit=6)])
    result = suite.run(engine, tokenizer)
    assert set(result["lm_eval"].metrics) == {"nbg_choices/acc", "nbg_choices/acc_norm"}
    assert "benchmark/lm_eval/nbg_choices/acc" in result.metrics
    assert torch.equal(before, torch.get_rng_state())
    json.dumps(result["lm_eval"].about)


def test_what_cannot_be(both):
    ours, _, tasks, *_ = both
    with pytest.raises(ValueError, match="no task no_such_task"):
        evaluate_tasks(ours, ["no_such_task"], str(tasks))
    with pytest.raises(ValueError, match="n has no effect"):
        HarnessTasks(tasks=["x"], n=3)
