"""One suite on the live model, vLLM in process and a vLLM server, from YAML: the same numbers and texts."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from nbg_lightning.callbacks.benchmark_suite import BenchmarkSuiteCallback
from nbg_lightning.cli import main
from nbg_lightning.core import create_model, preset
from nbg_lightning.data.tokenizer import Tokenizer, train_bpe
from nbg_lightning.datamodules.benchmark import BenchmarkDataModule
from nbg_lightning.engines import LocalEngine, Sampling, ServerEngine, VLLMEngine
from nbg_lightning.evaluation import Arithmetic, PairwiseJudged, RubricJudged, Suite
from nbg_lightning.testing import run_ranks
from nbg_lightning.testing.benchmarks import write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with clear choices, its tokenizer, and items: a Hugging Face folder, as one is downloaded."""
    from nbg_lightning.core.hf_folder import save_hugging_face

    root = tmp_path_factory.mktemp("engines")
    train_bpe(["the quick brown fox jumps over 12 lazy dogs and 34 cats. " * 3] * 20, 300, root / "tokenizer")
    model = create_model(preset("nano", max_position_embeddings=256), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    save_hugging_face(model, root / "model", Tokenizer(root / "tokenizer"), dtype="float32", verify=False)
    rows = [{"question": f"pick {i}", "choices": ["one", "three hundred", "2"], "answer": i % 3} for i in range(8)]
    write_rows(root / "choices.jsonl", rows)
    write_rows(root / "texts.jsonl", [{"text": f"the quick brown fox jumps over {n} dogs " * n} for n in (1, 9)])
    return root


def config(folder, out, engine=None, **changes):
    """A run of `nbg test`."""

    def benchmark(kind, /, **arguments):
        return {"class_path": f"nbg_lightning.evaluation.{kind}", "init_args": arguments}

    benchmarks = [
        benchmark("Arithmetic", count=6, num_shots=1, stop=["JJJ"]),
        benchmark("Arithmetic", name="long", count=3, max_new_tokens=24, stop=[]),
        benchmark("Questions", path=str(folder / "choices.jsonl"), answers="rated"),
        benchmark("TextPerplexity", path=str(folder / "texts.jsonl")),
    ]
    suite = {"name": "tiny", "sampling": {"max_new_tokens": 8, "temperature": 0.0}, "benchmarks": benchmarks}
    whole = {
        "model": {
            "class_path": "nbg_lightning.PretrainModule",
            "init_args": {"base_weights": str(folder / "model"), "parallel": {"compute_dtype": "float32"}},
        },
        "data": {"class_path": "nbg_lightning.BenchmarkDataModule", "init_args": {"suite": suite, "engine": engine}},
        "trainer": {
            "default_root_dir": str(folder / out),
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
        },
        **changes,
    }
    (folder / f"{out}.yaml").write_text(yaml.safe_dump(whole))
    return ["test", "--config", str(folder / f"{out}.yaml")]


def found(folder, out):
    """Metrics and records of the one result there."""
    [place] = (folder / out / "benchmarks").iterdir()
    result = json.loads((place / "results.json").read_text())["benchmarks"]

    def records(name):
        lines = (place / f"{name}.jsonl").read_text().splitlines()
        return sorted(map(json.loads, lines), key=lambda record: record["index"])

    metrics = {each["name"]: each["metrics"] for each in result}
    return metrics, {name: records(name) for name in metrics}, {each["about"]["engine"] for each in result}


def assert_same(folder, out, engine, native):
    metrics, records, engines = found(folder, out)
    assert engines == {engine}
    assert metrics.keys() == native[0].keys()
    for name, values in metrics.items():
        assert values == pytest.approx(native[0][name], abs=1e-4), name
    for name in ("arithmetic", "long"):
        texts = [[(s["text"], s["finish_reason"], s["status"]) for s in r["samples"]] for r in records[name]]
        assert texts == [[(s["text"], s["finish_reason"], s["status"]) for s in r["samples"]] for r in native[1][name]]
        assert [r["token_hash"] for r in records[name]] == [r["token_hash"] for r in native[1][name]]
    rated = [number for r in records["questions"] for number in r["log_likelihoods"]]
    assert rated == pytest.approx([n for r in native[1]["questions"] for n in r["log_likelihoods"]], abs=1e-4)


@pytest.fixture(scope="module")
def native(folder):
    assert main(config(folder, "native")) == 0
    metrics, records, engines = found(folder, "native")
    assert engines == {"NativeEngine"}
    assert any(s["finish_reason"] == "stop" for r in records["arithmetic"] for s in r["samples"]), "stop strings work"
    return metrics, records


@pytest.mark.vllm
def test_vllm_in_process(folder, native):
    engine = {"class_path": "nbg_lightning.engines.VLLMEngine", "init_args": {"dtype": "float32"}}
    assert main(config(folder, "vllm", engine)) == 0
    assert_same(folder, "vllm", "VLLMEngine", native)


def on_ranks(folder):
    """One vLLM a rank beside a sharded model; the items are shared."""
    import torch.distributed as dist

    from nbg_lightning.core.config import ParallelConfig
    from nbg_lightning.modules.pretrain import PretrainModule
    from nbg_lightning.trainer import Trainer

    folder = Path(folder)
    whole = yaml.safe_load((folder / "native.yaml").read_text())["data"]["init_args"]["suite"]
    (folder / "suite.yaml").write_text(yaml.safe_dump(whole))
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        default_root_dir=str(folder / "ranks"),
        logger=False,
        enable_progress_bar=False,
    )
    module = PretrainModule(base_weights=str(folder / "model"), parallel=ParallelConfig(compute_dtype="float32"))
    data = BenchmarkDataModule(str(folder / "suite.yaml"), engine=VLLMEngine(dtype="float32"))
    trainer.test(module, datamodule=data, verbose=False)
    return dist.get_world_size(), data.result.metrics


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_on_two_ranks(folder, native):
    [(size, first), (_, second)] = run_ranks(on_ranks, 2, str(folder), folder=folder)
    assert size == 2
    assert first == second
    assert_same(folder, "ranks", "VLLMEngine", native)


@pytest.fixture(scope="module")
def url(folder, serve):
    """Address of a real server on this machine."""
    with serve(folder / "model") as address:
        yield address


def served(folder):
    """No weights in this process."""
    return {"class_path": "nbg_lightning.ServedModel", "init_args": {"base_weights": str(folder / "model")}}


@pytest.mark.vllm
@pytest.mark.slow
def test_server(folder, native, url):
    engine = {"class_path": "nbg_lightning.engines.ServerEngine", "init_args": {"url": url}}
    assert main(config(folder, "server", engine, model=served(folder))) == 0
    assert_same(folder, "server", "ServerEngine", native)


@pytest.mark.vllm
@pytest.mark.slow
def test_a_server_of_texts_only(folder, native, url):
    """The endpoint encodes and decodes: no tokenizer here, and only what is written can be asked."""
    engine = {"class_path": "nbg_lightning.engines.ServerEngine", "init_args": {"url": url, "interface": "text"}}
    arguments = config(folder, "texts", engine, model={"class_path": "nbg_lightning.ServedModel"})
    whole = yaml.safe_load((folder / "texts.yaml").read_text())
    del whole["data"]["init_args"]["suite"]["benchmarks"][2:]
    (folder / "texts.yaml").write_text(yaml.safe_dump(whole))
    assert main(arguments) == 0
    metrics, *_ = found(folder, "texts")
    assert metrics["arithmetic"]["accuracy"] == native[0]["arithmetic"]["accuracy"]


def judged(folder, judge):
    """Two benchmarks whose judge is a model that writes without sense: all it says is an error."""
    write_rows(folder / "pairs.jsonl", [{"question": f"write {n}", "baseline": "the fox"} for n in range(3)])
    criteria = [{"name": "tone", "9-10": "fine"}, {"name": "length", "9-10": "short"}]
    write_rows(folder / "rubric.jsonl", [{"query": f"write {n}", "checklist": criteria} for n in range(2)])
    suite = Suite(
        [
            PairwiseJudged(path=str(folder / "pairs.jsonl"), judge=judge(), judge_tokens=8),
            RubricJudged(path=str(folder / "rubric.jsonl"), judge=judge(), judge_tokens=8),
        ],
        sampling=Sampling(max_new_tokens=4, temperature=0.0),
        format="tokenizer",
    )
    with LocalEngine(str(folder / "model")) as engine:
        return suite.run(engine, Tokenizer(folder / "model"))


def assert_errors(result):
    for name, items in (("pairwise", 3), ("rubric", 2)):
        assert (result[name].items, result[name].errors, result[name].metrics) == (items, items, {})
        assert "the judge" in result[name].first_error
        for record in result.records[name]:
            assert record["samples"][0]["score"] is None, "never a bad answer"
            assert record["samples"][0]["text"], "what was judged is kept"


def test_a_judge_in_this_process(folder):
    # The prompts of judges are long: a window of 256 ends before theirs, which is an error too.
    result = judged(folder, lambda: LocalEngine(str(folder / "model"), options={"window": 4096}))
    assert_errors(result)
    assert "did not finish (length)" in result["rubric"].first_error
    assert "the window is 256" in judged(folder, lambda: LocalEngine(str(folder / "model")))["pairwise"].first_error


@pytest.mark.vllm
@pytest.mark.slow
def test_a_judge_of_a_server(folder, url):
    result = judged(folder, lambda: ServerEngine(url, interface="chat", retries=0))
    assert_errors(result)
    assert "HTTP 400" in result["pairwise"].first_error, "too long for it"


def test_a_server_that_is_not_there(folder, capsys):
    engine = {
        "class_path": "nbg_lightning.engines.ServerEngine",
        "init_args": {"url": "http://127.0.0.1:9/v1", "retries": 0},
    }
    assert main(config(folder, "nobody", engine, model=served(folder))) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "start the server, or name the model" in error[0]


def test_weights_in_this_process(folder, native):
    """`LocalEngine`: the same folder without a module."""
    engine = {"class_path": "nbg_lightning.engines.LocalEngine", "init_args": {"weights": str(folder / "model")}}
    assert main(config(folder, "local", engine, model=served(folder))) == 0
    assert_same(folder, "local", "LocalEngine", native)


def test_the_live_core_with_settings_of_its_own(folder, native):
    engine = {"class_path": "nbg_lightning.engines.NativeEngine", "init_args": {"max_rows": 2, "prefill_tokens": 64}}
    assert main(config(folder, "own", engine)) == 0
    assert_same(folder, "own", "NativeEngine", native)


def test_what_does_not_fit_is_said_at_once(folder, capsys):
    suite = Suite([Arithmetic(count=2)], format="text")
    with pytest.raises(ValueError, match="ServerEngine has weights of its own"):
        BenchmarkSuiteCallback(suite, engine=ServerEngine("http://127.0.0.1:9/v1"))
    with pytest.raises(ValueError, match="give a chat interface a chat format"):
        BenchmarkDataModule(suite, engine=ServerEngine("http://127.0.0.1:9/v1", interface="chat"))
    assert BenchmarkSuiteCallback(suite, engine=VLLMEngine()).engine is not None
    assert main(config(folder, "nothing", None, model=served(folder))) == 2
    assert "ServedModel has no weights" in capsys.readouterr().err
    assert not Path(folder, "nothing", "benchmarks").exists()
