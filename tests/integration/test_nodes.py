"""Two torchruns of two ranks each, as on two nodes: a rank or a whole node dies; what is lost, and when the run continues."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nbg_lightning.testing import free_port, launchable_environment

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("faulty_rank.py")


class Nodes:
    """Torchruns that find each other at one port of this machine."""

    def __init__(self, folder, fault, nodes="2"):
        place = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", folder.name]
        often = ["--max-restarts", "2", "--shutdown-timeout", "5"]
        self.words = ["--nnodes", nodes, "--nproc-per-node", "2", *place, *often, str(SCRIPT), str(folder), fault]
        self.folder = folder
        self.started = []

    def start(self, is_host):
        """Another node; the first holds the store at which they meet."""
        number = len(self.started)
        environment = launchable_environment() | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        words = ["--rdzv-conf", f"is_host={int(is_host)}", *self.words]
        with (self.folder / f"node-{number}.txt").open("w") as output:
            node = subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *words],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(node)
        return node

    def output(self):
        return "\n".join(file.read_text()[-3000:] for file in sorted(self.folder.glob("node-*.txt")))

    def end(self, node):
        """Its exit code."""
        try:
            return node.wait(400)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.output()}") from None

    def steps(self):
        """Each step that the first rank has made, and when."""
        lines = (self.folder / "steps.txt").read_text().splitlines()
        return [(int(step), float(seconds)) for step, seconds in map(str.split, lines)]


@pytest.fixture
def run(tmp_path):
    nodes = []

    def make(fault, **options):
        folder = tmp_path / fault
        folder.mkdir()
        nodes.append(Nodes(folder, fault, **options))
        return nodes[-1]

    yield make
    for node in [node for each in nodes for node in each.started]:
        if node.poll() is None:
            node.terminate()
            node.wait(60)


def left(folder):
    """What the last attempt recorded."""
    return json.loads(max(folder.glob("run-*.json"), key=os.path.getmtime).read_text())


def goes_on(run, straight):
    """The run ends as one without a fault, and two steps were computed twice; seconds between the fault and the next step."""
    steps = run.steps()
    assert [step for step, _ in steps] == [*range(1, 7), *range(5, 13)]
    found = left(run.folder)
    assert found["losses"] == straight["losses"][4:]
    assert found["weights"] == straight["weights"]
    return steps[6][1] - steps[5][1]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run = Nodes(tmp_path_factory.mktemp("straight"), "none")
    nodes = [run.start(True), run.start(False)]
    assert [run.end(node) for node in nodes] == [0, 0], run.output()
    return left(run.folder)


def test_a_rank_dies(straight, run):
    """Both nodes start their ranks again."""
    run = run("dies")
    nodes = [run.start(True), run.start(False)]
    assert [run.end(node) for node in nodes] == [0, 0], run.output()
    print("seconds until the next step:", round(goes_on(run, straight), 1))


def test_a_node_dies_and_comes_again(straight, run):
    """The other waits for it; started again with the same line, it joins, and both go on."""
    run = run("node")
    first, second = run.start(True), run.start(False)
    assert run.end(second) == -9
    begin = time.monotonic()
    third = run.start(False)
    assert [run.end(node) for node in (first, third)] == [0, 0], run.output()
    seconds = goes_on(run, straight)
    print(
        "seconds until the next step:",
        round(seconds, 1),
        "with the node back after",
        round(begin - run.steps()[5][1], 1),
    )


def test_a_node_dies_for_good(straight, run):
    """One node is enough (`--nnodes 1:2`): it continues alone, with the same samples, and the same losses up to rounding."""
    run = run("node", nodes="1:2")
    first, second = run.start(True), run.start(False)
    assert run.end(second) == -9
    assert run.end(first) == 0, run.output()
    steps, found = run.steps(), left(run.folder)
    assert [step for step, _ in steps] == [*range(1, 7), *range(5, 13)]
    assert found["losses"] == pytest.approx(straight["losses"][4:], rel=1e-5)
    assert found["weights"] == pytest.approx(straight["weights"], rel=1e-5)
    print("seconds until the next step:", round(steps[6][1] - steps[5][1], 1))


def test_the_node_at_which_they_meet_dies(straight, run):
    """The other ends too; both started again go on from the checkpoint."""
    run = run("node")
    first, second = run.start(False), run.start(True)
    assert run.end(second) == -9
    begin = time.monotonic()
    assert run.end(first) != 0
    print("seconds until the other ended:", round(time.monotonic() - begin, 1))
    again = [run.start(True), run.start(False)]
    assert [run.end(node) for node in again] == [0, 0], run.output()
    goes_on(run, straight)
