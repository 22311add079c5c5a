"""Writes dpo_losses.json: results of TRL's DPOTrainer on six pairs, as a reference for DPDModule without its token terms.

    python tests/golden/make_dpo_losses.py

TRL runs in the environment that benchmarks/performance/race.py makes (some minutes the first time). Policy and reference are
`SMALL_SHAPE` with weights drawn from two seeds, written as Hugging Face folders. Run it only with another version of TRL.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PATH = HERE / "dpo_losses.json"
POLICY_SEED, REFERENCE_SEED, BETA = 1, 2, 0.4
SCALE = 6.0  # weights times this: two draws of std 0.02 hardly differ, and every loss would be that of a log-ratio of 0
KINDS = ("sigmoid", "hinge", "ipo", "sigmoid_norm")


def pairs():
    """Ids of six prompts and their answers, of different lengths."""
    draw = random.Random(0)

    def ids(low, high):
        return [draw.randrange(1, 61) for _ in range(draw.randint(low, high))]

    return [{"prompt_ids": ids(1, 9), "chosen_ids": ids(1, 14), "rejected_ids": ids(1, 14)} for _ in range(6)]


def model_folder(folder, seed):
    """A small model as a Hugging Face folder in float32."""
    import torch

    from nbg_lightning.core.create import create_model
    from nbg_lightning.core.hf_folder import save_hugging_face
    from nbg_lightning.testing import SMALL_SHAPE

    model = create_model(SMALL_SHAPE, seed=seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1.0 if "norm" in name else SCALE)
    save_hugging_face(model, folder, dtype="float32", verify=False)
    return folder


def trl_side(folder):
    """In TRL's environment: loss, gradient norms and metrics of each kind."""
    import torch
    import transformers
    import trl
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    torch.set_num_threads(1)
    backend = Tokenizer(models.WordLevel({f"w{i}": i for i in range(61)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    words = dict(eos_token="w0", pad_token="w0", unk_token="w0")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **words)
    rows = [{"prompt": "w1 ", "chosen": "w2", "rejected": "w3"}] * 2
    results = {}
    for kind in KINDS:
        load = transformers.AutoModelForCausalLM.from_pretrained
        policy, reference = (load(Path(folder) / name, dtype=torch.float32) for name in ("policy", "reference"))
        config = trl.DPOConfig(
            output_dir=str(Path(folder) / "out"),
            loss_type=[kind],
            beta=BETA,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_dropout=True,
        )
        trainer = trl.DPOTrainer(
            model=policy,
            ref_model=reference,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        batch = DataCollatorForPreference(pad_token_id=0)(pairs())
        trainer.model.train()
        loss = trainer.compute_loss(trainer.model, dict(batch))
        loss.backward()
        gradients = {name: p.grad.norm().item() for name, p in trainer.model.named_parameters()}
        metrics = {
            name: values[-1]
            for name, values in trainer._metrics["train"].items()
            if name.startswith(("rewards", "logps"))
        }
        results[kind] = {"loss": loss.item(), "gradients": gradients, "metrics": metrics}
    versions = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    (Path(folder) / "results.json").write_text(json.dumps({"versions": versions, "results": results}))


def main():
    sys.path.insert(0, str(HERE.parents[1] / "benchmarks" / "performance"))
    from race import environment

    with tempfile.TemporaryDirectory() as folder:
        model_folder(Path(folder) / "policy", POLICY_SEED)
        model_folder(Path(folder) / "reference", REFERENCE_SEED)
        python = environment("trl", Path("~/.cache/nbg_lightning").expanduser())
        subprocess.run([python, __file__, "--trl-process", folder], check=True)
        found = json.loads((Path(folder) / "results.json").read_text())
    settings = {"beta": BETA, "policy_seed": POLICY_SEED, "reference_seed": REFERENCE_SEED, "scale": SCALE}
    PATH.write_text(
        json.dumps({"versions": found["versions"], **settings, "pairs": pairs(), "results": found["results"]}, indent=1)
        + "\n"
    )
    print(f"wrote {PATH}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trl-process"]:
        trl_side(sys.argv[2])
    else:
        main()
