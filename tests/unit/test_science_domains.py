"""The experiments on two domains: what damaged texts are, and which data each arm sees."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "science"))

import agents
import domain_seed
import domains
from domain_seed import SETTINGS, Domains, Seed, bought, call_text, sum_text, worked
from harness import Job
from quality_order import ARMS as ORDERS
from stages import draw_sums

SMALL = {**SETTINGS, "sums": {"test": 4, "rl": 6, "sft": 40}, "purchases": 60}


@pytest.mark.parametrize("wrong", [0.0, 0.25])
def test_a_share_of_lines_is_wrong(wrong):
    draw = random.Random(1)
    lines = [line for _ in range(50) for line in sum_text(draw, wrong).split("\n")]
    is_wrong = [int(line[:2]) + int(line[2:4]) != int(line.partition("=")[2]) for line in lines]
    assert sum(is_wrong) / len(lines) == pytest.approx(wrong, abs=0.02)


def test_a_share_of_calls_is_of_another_question():
    def other(text: str) -> list[bool]:
        blocks = [text.split("\n")[place : place + 4] for place in range(0, 40, 4)]
        return [f'"{asked.split()[3][:-1]}"' not in call for asked, call, *_ in blocks if '"item"' in call]

    draw = random.Random(1)
    clean, damaged = ([each for _ in range(50) for each in other(call_text(draw, wrong))] for wrong in (0.0, 0.25))
    assert not any(clean)
    assert sum(damaged) / len(damaged) == pytest.approx(0.25 * 7 / 8, abs=0.06), "of eight things, one is the same"


def test_sft_announces_some_sums_and_shows_some_purchases_to_their_end():
    draw = random.Random(1)
    made = draw_sums({"sft": 400}, seed=1)["sft"]
    said = [row["messages"][1]["content"].startswith("The answer is ") for row in worked(made, False, draw)]
    assert all(row["messages"][1]["content"].startswith("The answer is ") for row in worked(made, True, draw))
    always = [own for own, each in zip(said, made, strict=True) if each.then[0][0] == "+"]
    assert all(always)
    assert 0.4 < sum(said) / len(said) < 0.9
    whole = [sum(turn["role"] == "tool" for turn in row["messages"]) == 2 for row in bought(1000, 0.25, draw)]
    assert sum(whole) / len(whole) == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("order", [arm["order"] for arm in agents.ARMS.values()])
def test_orders_have_the_same_clean_tokens_and_domains_the_same_share_of_each_stage(tmp_path, order):
    table = Domains(tmp_path, 1, SMALL).curriculum(ORDERS[order]["clean"])
    whole = sum(stage.tokens for stage in table)
    assert whole == domain_seed.STEP_TOKENS * SETTINGS["base_steps"]
    clean = sum(stage.tokens * stage.mixture[f"{domain}-clean"] for stage in table for domain in domain_seed.DOMAINS)
    assert clean / whole == pytest.approx(0.6, abs=1e-9)
    for stage in table:
        assert stage.mixture["sums-clean"] + stage.mixture["sums-damaged"] == pytest.approx(domain_seed.SHARES["sums"])


class Recorder(Seed):
    """A seed that notes what it is asked to train on."""

    asked: list[tuple[str, ...]]

    def __init__(self, folder, seed, settings):
        super().__init__(folder, seed, settings)
        self.asked = []
        made.append(self)

    def start(self, order):
        return f"start of {order}"

    def chosen(self, name, weights):
        self.asked.append(("chosen", weights))
        return "chosen"

    def dpd(self, name, weights):
        self.asked.append(("dpd", weights))
        return "dpd"

    def grpo(self, name, weights, domains, steps, charges, prompts=domain_seed.PROMPTS, which=None):
        self.asked.append((weights, *domains, str(steps * prompts)))
        return f"{weights} {'+'.join(domains)}"

    def measure(self, name, weights, domain):
        self.asked.append(("measured", weights, domain))
        return 0.5


made: list[Recorder] = []


def asked(module, monkeypatch, tmp_path, arm):
    """What an arm trains and measures, in order."""
    monkeypatch.setattr(module, "Seed", Recorder)
    settings = {**SMALL, "half": domains.HALF, **module.ARMS[arm]}
    module.run(Job(arm, 1, "", settings, tmp_path / "runs" / arm))
    return made[-1].asked


def test_all_arms_of_two_parts_take_as_many_questions_of_each_domain(monkeypatch, tmp_path):
    questions = {}
    for arm in domains.ARMS:
        parts = [each for each in asked(domains, monkeypatch, tmp_path, arm) if each[0] != "measured"]
        questions[arm] = {
            domain: sum(int(number) / len(own) for _, *own, number in parts if domain in own)
            for domain in domain_seed.DOMAINS
        }
    assert questions["start"] == {"sums": 0, "purchases": 0}
    for arm in [arm for arm, own in domains.ARMS.items() if len(own["parts"]) == 2]:
        assert questions[arm] == {"sums": 16 * domain_seed.PROMPTS, "purchases": 16 * domain_seed.PROMPTS}


def test_the_halves_of_a_domain_share_no_question(tmp_path):
    seed = Seed(tmp_path, 1, SMALL)
    for domain in domain_seed.DOMAINS:
        both, first, second = (
            [row["question"] + str(row.get("data")) for _, row in seed.pool(domain, which).rows()]
            for which in (None, 0, 1)
        )
        assert sorted(first + second) == sorted(both)
        assert not set(first) & set(second)
        assert abs(len(first) - len(second)) <= 1


@pytest.mark.parametrize("arm", agents.ARMS)
def test_no_arm_sees_purchases_after_sft_before_they_are_measured(monkeypatch, tmp_path, arm):
    steps = asked(agents, monkeypatch, tmp_path, arm)
    measured = steps.index(next(each for each in steps if each[0] == "measured" and each[2] == "purchases"))
    assert not any("purchases" in each for each in steps[:measured])
    assert [each[1] for each in steps if each[0] != "measured"][-1] == "purchases", "the last part is on purchases"
    assert steps[-1][0] == "measured"
