"""The same steps and builds on Ray Data, on a single-machine cluster."""

import pytest
import ray
import ray.data

from nbg_lightning.construction.filtering.columns import build_columns
from nbg_lightning.construction.filtering.signals import Signals
from nbg_lightning.construction.filtering.table import Table
from nbg_lightning.jobs import run_jobs, start_ray


@pytest.fixture(scope="module")
def cluster():
    yield start_ray(1)
    ray.shutdown()


def test_a_step_is_mapped_unchanged(cluster, texts):
    rows = [{"id": str(index), "text": text} for index, text in enumerate(texts["spam"][:20])]
    step = Signals()
    found = sorted(ray.data.from_items(rows).map(step).take_all(), key=lambda row: int(row["id"]))
    for row, own in zip(found, map(step, rows), strict=True):
        assert set(row) == set(own)
        assert all(row[name] == pytest.approx(own[name]) for name in own if name not in ("id", "text", "failed_rules"))
        assert list(row["failed_rules"]) == own["failed_rules"]


def test_a_build_is_that_of_this_machine(cluster, corpus, tmp_path):
    build_columns("signals", corpus, Signals(), tmp_path / "local", num_workers=0)
    build_columns("signals", corpus, Signals(), tmp_path / "ray", engine="ray", num_workers=1)
    assert list(Table(tmp_path / "ray").rows()) == list(Table(tmp_path / "local").rows())
    for file in Table(tmp_path / "local").files:
        assert (tmp_path / "ray" / file.name).read_bytes() == file.read_bytes()


def fail(job):
    raise ValueError(f"job {job} is bad: fix it")


def test_errors_of_users_stay_one_line(cluster):
    with pytest.raises(ValueError, match=r"^job \d is bad: fix it$"):
        list(run_jobs(fail, [1, 2], engine="ray"))
