"""A plan as text: what is in the table, and that a narrow terminal has room for the names of its phases."""

import io
import re

import pytest
from rich.console import Console

from nbg_lightning.core.config import ParallelConfig, preset
from nbg_lightning.planning import Cluster, TrainingPhase, Workload, device_of, print_resources
from nbg_lightning.planning.memory import Memory
from nbg_lightning.planning.plan import PhasePlan, ResourcePlan
from nbg_lightning.planning.time import step_time

PHASES = (
    TrainingPhase("warmup", 4096, 2**23, 11_921, 4096),
    TrainingPhase("diversity-enriched-stable", 4096, 2**23, 1_478_195, 4096),
    TrainingPhase("of as many steps as the data have", 65_536, 2**23, None, 65_536),
)
WORKLOAD = Workload("pretraining", preset("nanbeige4-3b"), ParallelConfig(), 65_536, PHASES)


def printed(width):
    device, cluster = device_of("h100"), Cluster(8, 8)
    memory = Memory(5.7, 0.4, 0.0, 75.0, 0.0)
    phases = tuple(PhasePlan(each, 16, 16, memory, step_time(WORKLOAD, each, cluster, device)) for each in PHASES)
    output = io.StringIO()
    print_resources(ResourcePlan(WORKLOAD, cluster, device, phases, 72.6, ()), "run", Console(file=output, width=width))
    return output.getvalue()


@pytest.mark.parametrize(("width", "name"), [(80, "diversity"), (100, "diversity-enriched-stable")])
def test_names_are_read_at_any_width(width, name):
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    row = rf"^ {name}[\w-]* +4,096 +8\.39M +16 x 16 +81\.1 ! +[\d.]+ +[\d.]+K +\d+ +\d+ +[\d,]+ *$"
    assert re.search(row, text, re.MULTILINE)
    assert re.search(r" 65,536 +8\.39M .* \? +\? *$", text, re.MULTILINE)
    assert "does NOT fit: 72.6 GiB are free for it" in text
