"""The formulas of a run's first log lines, against the simulation."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import json
from nbg_lightning.core.config import LanguageModelConfig, ParallelConfig
from nbg_lightning.core.lora_config import LoRAConfig
from nbg_lightning.planning import Cluster, TrainingPhase, Workload, peak_memory
from nbg_lightning.planning.estimate import estimated_memory
from nbg_lightning.planning.workload import Trained

shape = LanguageModelConfig(8192, 256, 1024, 6, 4, 2, 64)
phase = TrainingPhase("all", 2048, 2**17, 10, 2048)
found = {}
for name, dtype, checkpointing, kind, context in (
    ("float32", "float32", "none", "cpu", 1), ("bfloat16", "bfloat16", "none", "cuda", 1),
    ("selective", "bfloat16", "selective", "cuda", 1), ("full", "bfloat16", "full", "cuda", 1),
    ("context", "bfloat16", "none", "cuda", 4), ("context, full", "bfloat16", "full", "cuda", 4)):
    parallel = ParallelConfig(compute_dtype=dtype, activation_checkpointing=checkpointing, context=context)
    work = Workload("pretraining", shape, parallel, 8192, (phase,))
    found[name] = [f(work, phase, Cluster(8, 8), kind).total for f in (estimated_memory, peak_memory)]
for name, trained in (("adapter", Trained(LoRAConfig())), ("muon", Trained(algorithm="muon"))):
    work = Workload("pretraining", shape, ParallelConfig(), 8192, (phase,), trained=trained)
    found[name] = [f(work, phase, Cluster(8, 8), "cuda").total for f in (estimated_memory, peak_memory)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found():
    return json.loads(subprocess.check_output([sys.executable, "-c", SCRIPT], text=True).splitlines()[-1])


@pytest.mark.parametrize(
    "setting", ["float32", "bfloat16", "selective", "full", "context", "context, full", "adapter", "muon"]
)
def test_formulas_are_near_the_simulation(found, setting):
    estimated, simulated = found[setting]
    assert estimated == pytest.approx(simulated, rel=0.25)
