"""Files of real runs, as `nbg runs`, `nbg view`, the report and the model card read them."""

import json
from types import SimpleNamespace

import pytest

from nbg_lightning.callbacks import BenchmarkSuiteCallback, SampleTable
from nbg_lightning.commands import runs as runs_command
from nbg_lightning.commands import view as view_command
from nbg_lightning.commands.run_folder import read_run
from nbg_lightning.core.weights import open_weights
from nbg_lightning.data.tokenizer import TokenizerConfig
from nbg_lightning.engines.protocol import Sampling
from nbg_lightning.evaluation import Arithmetic, Suite
from nbg_lightning.pages.sources import newest_results
from nbg_lightning.recipe.card import model_card, run_results
from nbg_lightning.recipe.card import read_run as read_facts
from nbg_lightning.recipe.gather import read_curves, read_rollouts, read_suite
from nbg_lightning.testing import train_small
from nbg_lightning.testing.benchmarks import character_tokenizer
from nbg_lightning.testing.grpo import small_tokenizer, train_small_grpo

SUITES = {"addition": 3, "more-sums": 2}  # items by suite


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that is validated and evaluated on two suites at the end of each of its three stages."""
    folder = tmp_path_factory.mktemp("trained")
    tokenizer = TokenizerConfig(str(character_tokenizer(folder / "tokenizer").folder))
    suites = [
        BenchmarkSuiteCallback(
            Suite([Arithmetic(count=count)], name=name, sampling=Sampling(max_new_tokens=2, temperature=0.0)),
            at_stage_ends=True,
            tokenizer=tokenizer,
        )
        for name, count in SUITES.items()
    ]
    run = train_small(folder / "run", callbacks=suites, logger=None, limit_val_batches=1, val_check_interval=4)
    return SimpleNamespace(folder=folder / "run", run=run, results=[suite.results[-1][1] for suite in suites])


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """Two steps of GRPO with all their groups and answers in the file of rollouts."""
    folder = tmp_path_factory.mktemp("policy")
    callbacks = [SampleTable(every_n_steps=1, num_groups=4, num_answers=4)]
    tokenizer = small_tokenizer(folder)
    run = train_small_grpo(folder / "run", tokenizer=tokenizer, steps=2, callbacks=callbacks, logger=None)
    return SimpleNamespace(folder=folder / "run", run=run)


def viewed(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert view_command.main([str(folder), "--out", str(page)]) == 0
    return page.read_text("utf-8"), capsys.readouterr().out


# -- a run with validation and benchmarks --------------------------------------------------------------------------------


def test_curves_of_the_report_are_the_logged_values(trained):
    curves = read_curves(trained.folder)
    assert curves["train/loss"].values == pytest.approx(trained.run.losses)
    assert curves["train/loss"].steps == [step["step"] - 1 for step in trained.run.steps], "Lightning counts from 0"
    assert curves["val/loss"].values[-1] == pytest.approx(trained.run.metrics["val/loss"])


def test_the_list_of_runs_has_the_record_and_the_newest_result(trained, capsys):
    assert runs_command.main([str(trained.folder), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["state"], row["step"], row["problem"]) == ("finished", 12, None)
    assert row["benchmarks"] == {each.name: each.metrics[each.primary] for each in trained.results[-1].benchmarks}


def test_the_newest_result_of_each_suite_is_shown(trained, tmp_path, capsys):
    assert sorted(
        json.loads((each / "results.json").read_text())["suite"] for each in newest_results(trained.folder)
    ) == [*SUITES]
    page, said = viewed(trained.folder, tmp_path, capsys)
    assert "3 of 3 items" in said and "2 of 2 items" in said
    for name in SUITES:
        assert f"arithmetic of the suite {name}" in page
    assert read_suite(trained.folder).metrics == trained.results[-1].metrics


def test_the_model_card_has_the_newest_result_of_each_suite(trained):
    checkpoint = open_weights(trained.folder).folder
    found = {result.name: result.metrics for result in run_results(checkpoint)}
    assert found == {result.name: result.metrics for result in trained.results}
    card = model_card("me/model", [], read_facts(checkpoint), run_results(checkpoint), None)
    assert all(f"| {name} | arithmetic |" in card for name in SUITES)
    assert "`PretrainModule`" not in card, "a run in Python writes no config.yaml"


# -- rollouts ------------------------------------------------------------------------------------------------------------


def shown(record):
    return record.prompt[0].pieces[0].text, sorted((answer.name, answer.score) for answer in record.answers)


def test_rollouts_are_shown_as_they_were_scored(policy, tmp_path, capsys):
    groups = [
        (
            rollout.question.messages[-1]["content"],
            sorted((f"answer {number}", result.score) for number, result in enumerate(rollout.results)),
        )
        for rollouts in policy.run.rollouts
        for rollout in rollouts
    ]
    first, last = map(shown, read_rollouts(policy.folder))
    assert first in groups[:4] and last in groups[4:]
    page, said = viewed(policy.folder, tmp_path, capsys)
    assert "8 of 8 groups of answers" in said
    for question, _ in groups:
        assert f"{question}</pre>" in page


def test_the_list_of_runs_has_the_reward_of_the_last_step(policy):
    assert read_run(policy.folder).results["reward"] == pytest.approx(policy.run.metrics[-1]["reward/mean"])
