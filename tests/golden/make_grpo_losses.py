"""Writes grpo_losses.json: results of TRL's GRPOTrainer on random log-probs, as a reference for losses/policy_gradient.py.

    python tests/golden/make_grpo_losses.py

TRL runs in the environment that benchmarks/performance/race.py makes (some minutes the first time). It computes its loss, and
its advantages, of drawn tensors; no model is needed. Run it only with another version of TRL.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PATH = HERE / "grpo_losses.json"
LENGTHS, LONGEST = [7, 3, 1, 5, 6, 2], 7
CASES = {  # our name: TRL's settings
    "grpo": dict(loss_type="grpo", epsilon_low=0.2, epsilon_high=0.2),
    "dr_grpo": dict(loss_type="dr_grpo", epsilon_low=0.2, epsilon_high=0.2),
    "dapo": dict(loss_type="dapo", epsilon_low=0.2, epsilon_high=0.28),
    "gspo": dict(loss_type="grpo", epsilon_low=0.05, epsilon_high=0.1, importance_sampling_level="sequence"),
    "cispo": dict(loss_type="cispo", epsilon_low=1.0, epsilon_high=1.3),  # TRL's upper bound is of the ratio itself
    "grpo with engine weights": dict(loss_type="grpo", epsilon_low=0.2, epsilon_high=0.2, correction=True),
    "grpo with kl": dict(loss_type="grpo", epsilon_low=0.2, epsilon_high=0.2, beta=0.1),
}
REWARDS = [[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5], [0.1, 0.9, 0.3, 0.2]]


def trl_side():
    """In TRL's environment."""
    from collections import defaultdict
    from types import SimpleNamespace

    import torch
    import trl
    from trl.trainer.grpo_trainer import GRPOTrainer
    from trl.trainer.utils import nanstd

    generator = torch.Generator().manual_seed(0)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    mask = (torch.arange(LONGEST)[None] < torch.tensor(LENGTHS)[:, None]).int()
    old = -torch.rand(len(LENGTHS), LONGEST, generator=generator, dtype=torch.float64) * 3
    tensors = {
        "now": old + 0.3 * normal(*old.shape),
        "old": old,
        "engine": old + 0.6 * normal(*old.shape),
        "reference": old + 0.3 * normal(*old.shape),
        "advantages": normal(len(LENGTHS)),
    }
    results = {}
    for name, case in CASES.items():
        now = tensors["now"].clone().requires_grad_()
        accelerator = SimpleNamespace(
            num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x, sync_gradients=True
        )
        stub = SimpleNamespace(
            aux_loss_enabled=False,
            top_entropy_quantile=1.0,
            off_policy_mask_threshold=None,
            importance_sampling_level=case.get("importance_sampling_level", "token"),
            beta=case.get("beta", 0.0),
            loss_type=case["loss_type"],
            epsilon_low=case["epsilon_low"],
            epsilon_high=case["epsilon_high"],
            max_completion_length=LONGEST + 2,
            use_vllm="correction" in case,
            vllm_importance_sampling_correction="correction" in case,
            current_gradient_accumulation_steps=1,
            args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
            model=SimpleNamespace(training=True),
            accelerator=accelerator,
            _entropy_bonus_enabled=False,
            _metrics={"train": defaultdict(list)},
            _get_per_token_logps_and_entropies=lambda *_, now=now, **__: (now, torch.zeros_like(now), None),
        )
        inputs = {
            "prompt_ids": torch.zeros(len(LENGTHS), 1),
            "prompt_mask": torch.ones(len(LENGTHS), 1),
            "completion_ids": torch.zeros(mask.shape),
            "completion_mask": mask,
            "advantages": tensors["advantages"],
            "old_per_token_logps": tensors["old"],
            "ref_per_token_logps": tensors["reference"],
            "importance_sampling_ratio": (tensors["old"] - tensors["engine"]).exp().clamp(max=2.0),
            "num_items_in_batch": mask.sum(),
        }
        loss = GRPOTrainer._compute_loss(stub, None, inputs)
        loss.backward()
        results[name] = {"loss": loss.item(), "gradient": now.grad.tolist()}
    rewards = torch.tensor(REWARDS, dtype=torch.float64)
    centred = rewards - rewards.mean(1, keepdim=True)  # lines 2765 to 2787 of its 1.16.0
    advantages = {
        "scaled": (centred / (nanstd(rewards, dim=1)[:, None] + 1e-4)).tolist(),
        "unscaled": centred.tolist(),
    }
    print(
        json.dumps(
            {
                "versions": {"trl": trl.__version__, "torch": torch.__version__},
                "tensors": {name: value.tolist() for name, value in tensors.items()},
                "results": results,
                "advantages": advantages,
            }
        )
    )


def main():
    sys.path.insert(0, str(HERE.parents[1] / "benchmarks" / "performance"))
    from race import environment

    python = environment("trl", Path("~/.cache/nbg_lightning").expanduser())
    output = subprocess.run([python, __file__, "--trl-process"], check=True, capture_output=True, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    settings = {"lengths": LENGTHS, "max_length": LONGEST + 2, "rewards": REWARDS, "cases": CASES}
    PATH.write_text(json.dumps({"versions": found.pop("versions"), **settings, **found}, indent=1) + "\n")
    print(f"wrote {PATH}")


if __name__ == "__main__":
    trl_side() if "--trl-process" in sys.argv else main()
