"""Answers within a token budget and over several steps: which are cut, how they continue, and their training."""

import dataclasses
import math
import shutil
import threading
import time

import pytest
import torch

from nbg_lightning.core.create import create_model
from nbg_lightning.data.question import Question
from nbg_lightning.engines.native import NativeEngine
from nbg_lightning.engines.protocol import OUT_OF_SECONDS, Begun, Completion, Prompt, Sampling, failed, request_seed
from nbg_lightning.modules.grpo import GRPOModule
from nbg_lightning.modules.optimizer import AdamWConfig
from nbg_lightning.rl.ledger import FOLDER, RolloutLedger
from nbg_lightning.rl.pending import DrawLimits, PendingGroup, draw_groups, joined, num_tokens, split_pending
from nbg_lightning.rl.rollout_settings import RolloutSettings
from nbg_lightning.testing.grpo import GRPO_SHAPE, small_tokenizer, train_small_grpo
from nbg_lightning.testing.staged import StagedNative, same_weights

PROMPTS = [Prompt(tuple(range(5, 5 + length)), seed=length) for length in (3, 9, 20)]
STOPS = tuple(range(0, 290, 11))  # of random weights some answers end early


@pytest.fixture(scope="module")
def engine():
    return NativeEngine(create_model(GRPO_SHAPE, seed=3))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return small_tokenizer(tmp_path_factory.mktemp("small"))


class Ending(GRPOModule):
    """Of random weights some answers end early."""

    def sampling(self, n, seed):
        return dataclasses.replace(super().sampling(n, seed), stop_ids=STOPS)


@pytest.fixture
def train(tmp_path, tokenizer):
    def run(name="run", engine=None, rollouts=None, module_options=None, **options):
        own = {"rollouts": RolloutSettings(**(rollouts or {})), "engine": engine, **(module_options or {})}
        return train_small_grpo(tmp_path / name, tokenizer=tokenizer, module=Ending, module_options=own, **options)

    return run


def groups(step=0):
    return [PendingGroup(Question(({"role": "user", "content": f"{p.seed}"},)), p, step) for p in PROMPTS]


def drawn(engine, sampling, budget, begun=None, seconds=60.0):
    limits = DrawLimits(seconds, engine.window, budget)
    return draw_groups(begun or groups(), sampling, engine.generate, limits, lambda value: [value])


def answers(found):
    return [completion for group in found for completion in group.completions]


# -- one step ----------------------------------------------------------------------------------------------------------


def cut_by_hand(lengths, budget):
    """How many tokens answers of these lengths have: rounds of equal shares, written down again."""
    has = [0] * len(lengths)
    while True:
        waiting = [n for n in range(len(lengths)) if has[n] < lengths[n]]
        share = (budget - sum(has)) // len(waiting) if waiting else 0
        if not share:
            return has
        for n in waiting:
            has[n] = min(lengths[n], has[n] + share)


@pytest.mark.parametrize("budget", [9, 40, 77, 100, 150, 10_000])
def test_a_budget_is_kept_and_cuts_the_answers_that_would_have_been(engine, budget):
    """What is drawn are the first tokens of the answers without a budget, whatever the rounds."""
    sampling = Sampling(max_new_tokens=24, n=3, stop_ids=STOPS, seed=5)
    whole, cut = answers(drawn(engine, sampling, None)), drawn(engine, sampling, budget)
    assert num_tokens(cut) <= budget
    assert [len(c.ids) for c in answers(cut)] == cut_by_hand([len(c.ids) for c in whole], budget)
    for one, other in zip(answers(cut), whole, strict=True):
        assert one.ids == other.ids[: len(one.ids)] and one.sample_index == other.sample_index
        assert one.log_probs == pytest.approx(other.log_probs[: len(one.ids)], abs=2e-5)
        assert one.finish_reason == (other.finish_reason if len(one.ids) == len(other.ids) else "budget")
    assert len({len(c.ids) for c in whole}) > 1  # some end early


def test_without_a_budget_the_engine_is_asked_once_and_as_before(engine):
    calls = []

    def generate(prompts, sampling, seconds):
        calls.append((list(prompts), sampling))
        return engine.generate(prompts, sampling, seconds)

    sampling = Sampling(max_new_tokens=8, n=2, seed=1)
    found = draw_groups(groups(), sampling, generate, DrawLimits(60, engine.window), lambda value: [value])
    assert calls == [(PROMPTS, sampling)]
    assert answers(found) == [c for group in engine.generate(PROMPTS, sampling) for c in group]


def test_processes_share_a_budget(engine):
    """Two of them take the tokens that one would take of all questions."""
    sampling = Sampling(max_new_tokens=24, n=3, stop_ids=STOPS, seed=5)
    alone = drawn(engine, sampling, 100)
    barrier, states, found = threading.Barrier(2, timeout=60), [None, None], [None, None]

    def rank(place, own):
        def gather(value):
            states[place] = value
            barrier.wait()
            both = list(states)
            barrier.wait()
            return both

        each = NativeEngine(engine.model)
        found[place] = draw_groups(own, sampling, each.generate, DrawLimits(60, each.window, 100), gather)

    threads = [threading.Thread(target=rank, args=pair) for pair in enumerate((groups()[:1], groups()[1:]))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [c.ids for c in answers(found[0] + found[1])] == [c.ids for c in answers(alone)]


def test_an_answer_that_goes_on_is_the_one_that_was_never_cut(engine):
    sampling = Sampling(max_new_tokens=20, n=4, seed=2)
    (whole,) = engine.generate(PROMPTS[1:2], sampling)
    for completion in whole:
        begun = Begun(completion.sample_index, 7, 13)
        (rest,) = engine.generate([Prompt(PROMPTS[1].ids + completion.ids[:7], seed=9, begun=begun)], sampling)
        assert [(c.ids, c.sample_index, c.finish_reason) for c in rest] == [
            (completion.ids[7:], completion.sample_index, "length")
        ]
        assert rest[0].log_probs == pytest.approx(completion.log_probs[7:], abs=2e-5)


def test_prompts_that_begin_and_go_on_share_a_call(engine):
    """Of few rows, so that they come and go."""
    small = NativeEngine(engine.model, max_rows=3)
    sampling = Sampling(max_new_tokens=10, n=4, seed=2, stop_ids=STOPS)
    whole = engine.generate(PROMPTS, sampling)
    going = [Prompt((*PROMPTS[0].ids, *whole[0][2].ids[:2]), seed=3, begun=Begun(2, 2, 8)), *PROMPTS[1:]]
    found = small.generate(going, sampling)
    assert [len(own) for own in found] == [1, 4, 4]
    assert found[0][0].ids == whole[0][2].ids[2:]
    assert [[c.ids for c in own] for own in found[1:]] == [[c.ids for c in own] for own in whole[1:]]


def test_an_answer_that_never_ends_is_given_up_and_the_others_are_not(engine):
    """Seconds are those of each answer: with one row at a time, later ones have theirs too."""

    slow = NativeEngine(engine.model, max_rows=1)
    sampling = Sampling(max_new_tokens=200, n=1, seconds=0.005, seed=3)
    found = [c for (c,) in slow.generate([Prompt((5, 6)), Prompt((7, 8)), Prompt((9, 10))], sampling)]
    assert [(c.finish_reason, c.error) for c in found] == [("deadline", OUT_OF_SECONDS)] * 3
    assert all(0 < len(c.ids) < 200 for c in found)
    free = [c for (c,) in slow.generate([Prompt((5, 6)), Prompt((7, 8)), Prompt((9, 10))], Sampling(200, seed=3))]
    assert all(whole.ids[: len(cut.ids)] == cut.ids for cut, whole in zip(found, free, strict=True))


def test_a_stop_or_a_deadline_ends_the_rounds(engine):
    calls = []

    def generate(prompts, sampling, seconds):
        calls.append(len(prompts))
        return [failed(n, sampling, 0, "late", "deadline", prompt) for n, prompt in enumerate(prompts)]

    sampling = Sampling(max_new_tokens=8, n=2)
    found = draw_groups(groups(), sampling, generate, DrawLimits(60, 256, 1000), lambda value: [value])
    assert calls == [3] and {c.finish_reason for c in answers(found)} == {"deadline"}


def test_an_engine_that_does_not_go_on_is_refused():
    """All samples of a continued prompt are sampled again."""

    def generate(prompts, sampling, seconds):
        def answer(prompt, sample):
            tokens = 1 if sample == 0 else sampling.max_new_tokens
            return Completion((7,) * tokens, (-1.0,) * tokens, "length" if sample else "stop", prompt, sample, 0)

        return [[answer(prompt, sample) for sample in range(2)] for prompt in range(len(prompts))]

    with pytest.raises(
        ValueError, match=r"gave 6 answers for 3; let it go on with one that has begun \(Prompt\.begun\)"
    ):
        draw_groups(groups(), Sampling(8, n=2), generate, DrawLimits(60, 256, 27), lambda value: [value])


def test_segments_of_an_answer_and_who_is_carried():
    first = Completion((1, 2), (-0.1, -0.2), "budget", 0, 1, 4)
    second = joined(first, Completion((3,), (-0.3,), "budget", 0, 0, 4))
    third = joined(second, Completion((), (), "deadline", 0, 0, 5))
    last = joined(third, Completion((4, 5), (-0.4, -0.5), "stop", 0, 0, 6))
    assert second.segments == ((4, 3),) and third.segments == ((4, 3),) and last.segments == ((4, 3), (6, 2))
    assert last.ids == (1, 2, 3, 4, 5) and last.sample_index == 1
    ended = Completion((1,), (0.0,), "deadline", 0, 0, 4, OUT_OF_SECONDS)
    whole = [
        PendingGroup(*PROMPT, step=step, completions=own)
        for step, own in ((0, (first, last)), (1, (first,)), (1, (ended,)))
    ]
    trained, carried = split_pending(whole, 2, 2)
    assert (trained, carried) == ([whole[0], whole[2]], [whole[1]])


PROMPT = (Question(({"role": "user", "content": "?"},)), Prompt((3,)))


def test_seeds_of_servers_differ_at_each_place():
    """They count draws from 0: the same numbers again would draw the same tokens again."""
    plain, sampling = Prompt((5, 6), seed=1), Sampling(seed=2)
    seeds = [request_seed(sampling, plain, 3)]
    seeds += [request_seed(sampling, Prompt((5, 6, *range(n)), seed=1, begun=Begun(3, n, 9)), 3) for n in range(1, 9)]
    assert len(set(seeds)) == 9


# -- a run -------------------------------------------------------------------------------------------------------------

LONG = {"max_new_tokens": 24, "micro_batch_tokens": 512}


def segments(run):
    return [[[answer.completion.segments for answer in r.answers] for r in step] for step in run.rollouts]


def asked(run):
    return sorted((r.question.key, r.prompt.seed) for step in run.rollouts for r in step)


def test_cut_answers_are_left_out_and_counted_and_never_wrong(train):
    run = train(rollouts={"token_budget": 110}, module_options=LONG)
    again = train("again", rollouts={"token_budget": 110}, module_options=LONG)
    same_weights(run, again)
    assert all(0 < share <= 1 for share in run.column("rollout/dropped"))
    for step in run.rollouts:
        assert sum(len(a.completion.ids) for r in step for a in r.answers) <= 110
        for rollout in step:
            for answer, result, trained in zip(rollout.answers, rollout.results, rollout.trained, strict=True):
                cut = answer.completion.finish_reason == "budget"
                assert (result.status, result.score is None, trained) == (
                    ("timeout", True, False) if cut else ("ok", False, True)
                )


def test_a_budget_that_all_fit_into_changes_nothing(train):
    same_weights(
        train("free", module_options=LONG), train("bound", rollouts={"token_budget": 10**9}, module_options=LONG)
    )


@pytest.fixture(scope="module")
def carried(tmp_path_factory, tokenizer):
    """A run in which most answers are carried over, and its folder."""
    folder = tmp_path_factory.mktemp("carried")
    rollouts = RolloutSettings(max_staleness=1, token_budget=140, carry_over=2)
    options = {"rollouts": rollouts, "engine": StagedNative(), **LONG}
    return folder, train_small_grpo(folder, tokenizer=tokenizer, module=Ending, steps=6, module_options=options)


ROLLOUTS = {"max_staleness": 1, "token_budget": 140, "carry_over": 2}


def test_carried_answers_are_of_several_weights_each_token_of_those_that_drew_it(carried):
    _, run = carried
    found = [(step, own) for step, of_step in enumerate(segments(run)) for r in of_step for own in r]
    assert any(len(own) > 1 for _, own in found)
    for step, own in found:
        drawn_by = [version for version, _ in own]
        assert drawn_by == sorted(drawn_by) and step - 3 <= drawn_by[0] and drawn_by[-1] <= max(0, step - 1)
    assert 0 < max(run.column("rollout/carried")) <= 1 and max(run.column("rollout/staleness")) > 1
    assert any(result.score is not None for r in run.rollouts[-1] for result in r.results)


def test_no_question_is_lost_or_trained_twice(carried, train):
    _, run = carried
    assert len(asked(run)) == len(set(asked(run))) == 24
    plain = train(engine=StagedNative(), rollouts={"max_staleness": 1}, module_options=LONG, steps=6)
    assert asked(plain) == asked(run)


def test_log_probs_are_of_the_weights_that_drew_them(carried, train):
    """With a learning rate of 0 all weights are those of the first step, and so is every segment."""
    off = {"optimizer": AdamWConfig(lr=0.0, weight_decay=0.0), **LONG}
    run = train(engine=StagedNative(), rollouts=ROLLOUTS, module_options=off, steps=5)
    assert any(len(own) > 1 for step in segments(run) for r in step for own in r)
    assert max(run.column("policy/mismatch_kl")) < 1e-9 and max(run.column("policy/p99_ratio")) < 1.001


def test_its_replay_trains_the_same_weights(carried, train):
    folder, run = carried
    again = train(rollouts={"replay": str(folder)}, steps=6, module_options=LONG)
    same_weights(run, again)
    assert again.scores == run.scores and segments(again) == segments(run)
    assert again.column("rollout/carried") == run.column("rollout/carried")


def test_the_same_seed_gives_the_same_run(carried, train):
    _, run = carried
    again = train(engine=StagedNative(), rollouts=ROLLOUTS, steps=6, module_options=LONG)
    same_weights(run, again)
    assert segments(again) == segments(run)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_run_goes_on_with_what_was_carried(carried, train, tmp_path, stop):
    _, straight = carried
    options = {"steps": 6, "module_options": LONG}
    train("broken", StagedNative(), ROLLOUTS, max_steps=stop, **options)
    resumed = train("broken", StagedNative(), ROLLOUTS, resume="last", **options)
    same_weights(straight, resumed)
    assert resumed.scores == straight.scores[stop:]
    same_weights(straight, train("replay", rollouts={"replay": str(tmp_path / "broken")}, **options))


def test_a_run_that_goes_back_forgets_what_was_carried_later(carried, train, tmp_path, tokenizer):
    _, straight = carried
    options = {"steps": 6, "module_options": LONG}
    train("run", StagedNative(), ROLLOUTS, checkpoint_every=1, **options)
    for name in ("step-00000004", "carried-00000004"):  # they would be read, if they were not drawn again
        (tmp_path / "run" / FOLDER / f"{name}-00000.parquet").write_bytes(b"torn")
    first = tmp_path / "run" / "checkpoints" / "step-00000002"
    same_weights(straight, train("run", StagedNative(), ROLLOUTS, resume=first, **options))


def test_without_its_ledger_what_was_carried_is_said_to_be_lost(train, tmp_path, caplog):
    options = {"steps": 4, "module_options": LONG}
    train("broken", StagedNative(), ROLLOUTS, max_steps=2, **options)
    shutil.rmtree(tmp_path / "broken" / FOLDER)
    train("broken", StagedNative(), ROLLOUTS, resume="last", **options)
    assert "questions that were carried over are left out" in caplog.text


def test_answers_older_than_carry_over_are_left_out_and_a_step_without_scores_ends_the_run(train, tmp_path):
    """Of a budget that is nearly nothing hardly any answer ends: a step has those of the one before, none with a score."""
    with pytest.raises(
        RuntimeError, match="has a score, the first because: timeout: the token budget of its step was used up"
    ):
        train(
            engine=StagedNative(),
            rollouts={**ROLLOUTS, "token_budget": 17, "carry_over": 1},
            module_options=LONG,
            steps=4,
        )
    ledger = RolloutLedger.at(tmp_path / "run")
    last = max(step for step in ledger.steps() if ledger.rows(step))
    assert last - 1 in {row["asked_step"] for row in ledger.rows(last)}
    assert "timeout" in {row["status"] for row in ledger.rows(last)}


def test_an_engine_that_dies_while_answers_go_on_changes_nothing(carried, train):
    _, straight = carried
    engine = StagedNative(dies_in={4})
    same_weights(straight, train("dying", engine, ROLLOUTS, steps=6, module_options=LONG))
    assert engine.entered == 2


def test_a_deadline_that_cuts_is_carried_over_too_and_replayed(train, tmp_path):
    """Time decides which are cut: only the ledger knows, and its replay is the run."""

    class Halting(StagedNative):
        def generate(self, prompts, sampling, deadline=None):
            found = super().generate(prompts, sampling, deadline)
            cut = [[c if (c.sample_index + self.calls) % 3 else self.begun(c) for c in own] for own in found]
            return cut

        def begun(self, completion):
            ids, log_probs = completion.ids[:2], completion.log_probs[:2]
            return Completion(ids, log_probs, "deadline", 0, completion.sample_index, completion.weight_version)

    rollouts = {"max_staleness": 1, "carry_over": 1}
    run = train("run", Halting(), rollouts, steps=4, module_options=LONG)
    assert any(len(own) > 1 for step in segments(run) for r in step for own in r)
    same_weights(run, train("again", rollouts={"replay": str(tmp_path / "run")}, steps=4, module_options=LONG))


def test_a_question_that_never_ends_holds_no_step(train):
    """Its answers end with their status; those of the others are trained."""

    class Endless(NativeEngine):
        def generate(self, prompts, sampling, deadline=None):
            long = dataclasses.replace(sampling, max_new_tokens=200, stop_ids=())
            short = dataclasses.replace(sampling, max_new_tokens=6)
            return [
                *self._run(prompts[:1], long, lambda piece: time.sleep(0.05), deadline),
                *(self._run(prompts[1:], short, None, deadline) if prompts[1:] else []),
            ]

    run = train(engine=Endless(), rollouts={"question_deadline": 1.0}, steps=2)
    for step in run.rollouts:
        assert {(r.status, r.detail) for r in step[0].results} == {
            ("timeout", "its question's deadline passed before the answer's end")
        }
        assert all(answer.completion.ids for answer in step[0].answers) and not any(step[0].trained)
        assert all(result.score is not None for r in step[1:] for result in r.results)
    assert run.column("rollout/dropped") == run.column("rollout/errors") == [0.25, 0.25]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_budget": 0}, "token_budget is invalid: 0; give a number of tokens"),
        ({"token_budget": 1.5}, r"token_budget is invalid: 1\.5"),
        ({"token_budget": True}, "token_budget is invalid: True"),
        ({"carry_over": -1, "max_staleness": 1}, "carry_over is invalid: -1; give a number of steps"),
        ({"carry_over": 0.5, "max_staleness": 1}, r"carry_over is invalid: 0\.5"),
        ({"carry_over": 1}, "carry_over is invalid: 1 with max_staleness 0"),
        ({"question_deadline": 0}, "question_deadline is invalid: 0; give seconds above 0"),
        ({"question_deadline": math.nan}, "question_deadline is invalid: nan"),
        ({"question_deadline": math.inf}, "question_deadline is invalid: inf"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        RolloutSettings(**settings)


@pytest.mark.parametrize("k", [0, 1])
def test_a_budget_below_a_token_an_answer_is_refused_before_the_first_step(train, k):
    with pytest.raises(
        ValueError, match="token_budget is invalid: 15 tokens for the 16 answers of a step; give 16 times"
    ):
        train(engine=StagedNative() if k else None, rollouts={"token_budget": 15, "max_staleness": k})


def test_ledgers_without_what_is_carried_are_read(carried, train, tmp_path):
    """Those of earlier versions have no column for it."""
    import pyarrow.parquet

    plain = train("plain", StagedNative(), {"max_staleness": 1}, steps=3, module_options=LONG)
    for file in (tmp_path / "plain" / FOLDER).glob("step-*.parquet"):
        table = pyarrow.parquet.read_table(file)
        pyarrow.parquet.write_table(table.drop_columns(["asked_step"]), file)
    same_weights(plain, train("again", rollouts={"replay": str(tmp_path / "plain")}, steps=3, module_options=LONG))
    assert RolloutLedger.at(tmp_path / "plain").rows(1, carried=True) == []
    assert torch.is_tensor(next(iter(plain.weights.values())))
