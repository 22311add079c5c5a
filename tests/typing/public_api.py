"""Public names as a type checker must see them: checked by mypy --strict in test_public_api.py, and never run.

A line with ``# type: ignore[...]`` is one that must be refused: without an error there, the comment itself is one.
"""

from typing import assert_type

import nbg_lightning as nbg
from nbg_lightning.core import create_model
from nbg_lightning.core.model import LanguageModel
from nbg_lightning.engines import Completion, Prompt, Sampling, ServerEngine
from nbg_lightning.rewards import MathReward, RewardResult
from nbg_lightning.rl import LeaveOneOut, PolicyLossConfig
from nbg_lightning.schedule import Plan, make_plan

stage = nbg.Stage("stable", "1M", 1e-3, {"web": 3, "code": 1})
curriculum = nbg.Curriculum([stage], tokens_per_step="64K", sequence_length=1024)
assert_type(curriculum, nbg.Curriculum)
assert_type(curriculum.num_steps, int)
assert_type(make_plan(curriculum), Plan)
assert_type(create_model(nbg.preset("tiny")), LanguageModel)
assert_type(RewardResult(1.0).score, float | None)

sampling = Sampling(max_new_tokens=16, temperature=0.7)
engine = ServerEngine("http://localhost:8000/v1")
assert_type(engine.generate([Prompt((1, 2))], sampling), list[list[Completion]])

nbg.Stage("stable", "1M", 1e-3, {"web": 3}, decai="linear")  # type: ignore[call-arg]
nbg.Curiculum()  # type: ignore[attr-defined]
Sampling(max_new_tokens="16")  # type: ignore[arg-type]
MathReward(worker=2)  # type: ignore[call-arg]
make_plan(stage)  # type: ignore[arg-type]
create_model("tiny")  # type: ignore[arg-type]

# Keywords that a constructor passes on to its base are checked as if it named them.
chats = nbg.ChatDataModule({}, "tokenizer", 1024, "64K", packing="padded", epochs=0.5, data_dir="data", seed=1)
assert_type(chats.domains, list[str])
nbg.ChatDataModule({}, "tokenizer", 1024, "64K", validation_share=0.1)  # type: ignore[call-arg]
nbg.PreferenceDataModule({}, "tokenizer", 1024, "64K", epochs="two")  # type: ignore[arg-type]
nbg.PromptDataModule({}, on_invalid="ignore")  # type: ignore[arg-type]

pairs = nbg.DPDModule("tiny", beta=0.2, base_weights="out", micro_batch_tokens=4096)
assert_type(pairs.seed, int)
policy = nbg.GRPOModule(MathReward(), group_size=4, loss="dapo", advantages=LeaveOneOut(), ema_decay=0.99)
assert_type(policy.loss_config, PolicyLossConfig)
nbg.DPDModule("tiny", micro_batch_token=4096)  # type: ignore[call-arg]
nbg.GRPOModule(MathReward(), seed="1")  # type: ignore[arg-type]
nbg.GRPOModule(MathReward(), loss="ppo")  # type: ignore[arg-type]
PolicyLossConfig("grpo", clip=0.2)  # type: ignore[call-arg]
