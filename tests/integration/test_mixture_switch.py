"""A stage begins with exactly its first sample and all its settings, however far workers prefetch."""

import pytest

from nbg_lightning.data.order import SampleOrder, sample_hash
from nbg_lightning.schedule.curriculum import Curriculum
from nbg_lightning.testing import SMALL_LENGTH, SMALL_STEP_TOKENS, SyntheticDataModule, small_stages, train_small

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")  # torch's, on fewer cores

CURRICULUM = Curriculum(small_stages(), SMALL_STEP_TOKENS, SMALL_LENGTH)


@pytest.fixture(scope="module", params=[0, 2, 4], ids=["main process", "2 workers", "4 workers"])
def run(request, tmp_path_factory):
    return train_small(tmp_path_factory.mktemp("run"), num_workers=request.param)


def flat(columns):
    return [value for column in columns for value in column]


def test_mixture_switches_at_its_sample(run):
    """4 steps of 8 windows from a only, 4 of a and b as 1 to 3, then 4 steps of 4 windows from b only."""
    sources = flat(run.column("source"))
    assert sources[:32] == [0] * 32
    stable = sources[32:64]
    assert 7 <= stable.count(0) <= 9
    assert stable[:8].count(1) >= 5  # in the first step already
    assert sources[64:] == [1] * 16


def test_every_sample_is_the_orders(run):
    order = SampleOrder(0, CURRICULUM, lambda source, length: {"a": 97, "b": 23}[source])
    samples = order.lookup(0, CURRICULUM.num_samples)
    assert flat(run.column("source")) == samples.source.tolist()
    assert flat(run.column("sample_hash")) == sample_hash(0, samples).astype("int64").tolist()


def test_learning_rate_of_every_step(run):
    """Warm-up over 4 steps, not from 0; then constant; then down to exactly 0."""
    expected = [2.5e-3, 5e-3, 7.5e-3, 1e-2] + [1e-2] * 4 + [7.5e-3, 5e-3, 2.5e-3, 0.0]
    assert run.column("lr") == pytest.approx(expected, rel=1e-6)
    assert run.column("lr") == pytest.approx([CURRICULUM.learning_rate(step) for step in range(12)], rel=1e-6)


def test_length_and_rope_base_of_every_stage(run):
    assert run.column("length") == [32] * 8 + [64] * 4
    assert run.column("rope_theta") == [1e4] * 8 + [1e5] * 4


def test_training_ends_with_the_last_stage(run):
    assert run.column("step") == list(range(1, 13))


def test_stage_without_a_rope_base_has_the_models(tmp_path):
    """Also after a stage with another: straight and resumed runs agree."""
    long, warmup, stable = small_stages()[2], *small_stages()[:2]
    stages = [warmup, long, stable]
    straight = train_small(tmp_path, stages=stages, checkpoint_every=9)
    assert straight.column("rope_theta") == [1e4] * 4 + [1e5] * 4 + [1e4] * 4
    resumed = train_small(tmp_path, stages=stages, resume=tmp_path / "checkpoints" / "step-00000009")
    assert resumed.losses == straight.losses[9:]


def test_seed_decides_the_order(tmp_path, run):
    other = train_small(tmp_path, datamodule=SyntheticDataModule({"a": 97, "b": 23}, 61, seed=1), max_steps=1)
    assert other.column("sample_hash")[0] != run.column("sample_hash")[0]
