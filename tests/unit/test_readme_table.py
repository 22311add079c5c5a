"""The measurements in the docs and the README match the committed results."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def table() -> dict:
    return runpy.run_path(str(BENCHMARKS / "readme_table.py"))


@pytest.mark.parametrize("name", ["README.md", "docs/measured.md"])
def test_a_page_has_the_numbers_of_the_results(name: str, table: dict) -> None:
    written = {path.relative_to(table["ROOT"]).as_posix(): path for path in table["WRITTEN"]}
    text = written[name].read_text("utf-8")
    content = table["WRITTEN"][written[name]]()
    assert table["between_marks"](text, content) == text, "run: python benchmarks/readme_table.py"


def test_the_readme_has_five_numbers_of_which_each_is_in_the_table_too(table: dict) -> None:
    numbers = [line.split(" | ")[1].removesuffix(" |") for line in table["five_numbers"]().splitlines()[2:7]]
    assert len(numbers) == 5
    for number in numbers:
        assert number.replace(" MB instead of ", " against ") in table["table"]()


def test_every_row_names_its_setting_and_a_script_that_is_there(table: dict) -> None:
    folders = table["folders"]()
    assert {name for name in table["TABLES"] for each in folders if (each / f"{name}.json").is_file()} == set(
        table["TABLES"]
    )
    for question, answer, script in (row for each in folders for row in table["rows"](each)):
        assert "thread" in question or "workers" in question, question
        assert any(kind in question for kind in ("fp32", "bf16", "integers", "no tensors")), question
        assert answer and (BENCHMARKS / "performance" / script.split()[0]).is_file()


def test_a_number_of_a_result_reaches_its_row(table: dict) -> None:
    ratio = {"median": 7.0, "lower_quartile": 6.0, "upper_quartile": 8.0}
    result = {"machine": {"threads": 1}, "results": {"fit_over_bare": ratio}}
    [(question, answer, script)] = table["TABLES"]["pretrain_overhead"](result)
    assert "1 thread)" in question
    assert (answer, script) == ("7.00 (6.00 to 8.00)", "pretrain_overhead.py")


def test_one_command_runs_every_benchmark_that_leaves_results(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS / "performance"), *sys.path])
    run_all = runpy.run_path(str(BENCHMARKS / "performance" / "run_all.py"))
    measured = {measurement.script for measurement in run_all["MEASUREMENTS"].values()}
    helpers = {"paired", "race", "run_all", "echo", "plan_check"}  # plan_check has its own page
    assert measured == {file.stem for file in (BENCHMARKS / "performance").glob("*.py")} - helpers
    assert set(runpy.run_path(str(BENCHMARKS / "readme_table.py"))["TABLES"]) <= set(run_all["MEASUREMENTS"])


def test_results_of_another_processor_are_a_column_beside(tmp_path, table: dict) -> None:  # type: ignore[no-untyped-def]
    first = table["folders"]()[0]
    for name, processor in (("one", "One"), ("two", "Two")):
        (tmp_path / name).mkdir()
        for file in ("sandbox", "data_order")[: 2 if name == "one" else 1]:
            result = json.loads((first / f"{file}.json").read_text())
            result["machine"]["processor"] = processor
            (tmp_path / name / f"{file}.json").write_text(json.dumps(result))
    table["table"].__globals__["RESULTS"] = tmp_path
    head, _, order, sandbox, *_ = table["table"]().splitlines()
    table["table"].__globals__["RESULTS"] = first.parent
    assert head.split(" | ")[1:3] == ["2 cores of an One", "2 cores of an Two"]
    assert [text.strip() == "" for text in order.split("|")[2:4]] == [False, True]
    assert sandbox.split("|")[2] == sandbox.split("|")[3]


@pytest.mark.parametrize(("name", "folder"), [
    ("Intel(R) Xeon(R) Processor", "intel-xeon-processor"), ("AMD EPYC", "amd-epyc"), ("Intel(R) Core(TM) i7-1185G7 @ 3.00GHz",
    "intel-core-i7-1185g7-3-00ghz"), ("../..", "unknown"),
])  # fmt: skip
def test_a_processor_names_its_folder(name: str, folder: str) -> None:
    assert runpy.run_path(str(BENCHMARKS / "performance" / "paired.py"))["folder_of"](name) == folder
