"""The modules imported by a command up to its first step."""

import json
import subprocess
import sys

import yaml

NOT_NEEDED = (  # of a small pretraining on text files; each costs processor time, and some of them seconds
    "datasets",
    "matplotlib",
    "networkx",
    "pandas",
    "pyarrow",
    "ray",
    "reasoning_gym",
    "scipy.signal",
    "sklearn",
    "torch._inductor.compile_fx",
    "transformers",
    "vllm",
)


def test_a_first_step_imports_what_it_needs(tmp_path):
    texts = [f"{word} number {number} of the text.\n" for number in range(60) for word in ("Every", "another")]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text * 8}) + "\n" for text in texts))
    stage = {"name": "only", "tokens": 1024, "lr": 1e-3, "mixture": {"web": 1}}
    curriculum = {"tokens_per_step": 1024, "sequence_length": 128, "stages": [stage]}
    source = {
        "class_path": "nbg_lightning.data.JsonLines",
        "init_args": {"path": str(tmp_path / "texts.jsonl")},
    }
    config = {
        "model": {"class_path": "nbg_lightning.PretrainModule", "init_args": {"core": "nano"}},
        "data": {
            "class_path": "nbg_lightning.CurriculumDataModule",
            "init_args": {
                "data_dir": str(tmp_path / "data"),
                "tokenizer": {"train_vocab_size": 280},
                "sources": {"web": source},
            },
        },
        "trainer": {
            "default_root_dir": str(tmp_path / "run"),
            "accelerator": "cpu",
            "callbacks": [{"class_path": "nbg_lightning.FGWSD", "init_args": curriculum}],
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    code = (
        "import json, sys; from nbg_lightning.cli import main;"
        f"code = main(['fit', '--config', {str(tmp_path / 'config.yaml')!r}]);"
        f"print(json.dumps([code, [name for name in {NOT_NEEDED} if name in sys.modules]]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [0, []], run.stderr
