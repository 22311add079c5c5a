import logging
from collections import Counter

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from nbg_lightning.data import Question, QuestionList, ReasoningGymQuestions, train_bpe
from nbg_lightning.datamodules.prompts import PromptDataModule, PromptStage
from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.rewards.protocol import Reward
from nbg_lightning.rl.pass_rate import PassRate, PassRateBand, PassRateLedger
from nbg_lightning.trainer import Trainer


def rows(name, count):
    return [{"question": f"{name} {number} ?", "answer": number} for number in range(count)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = ["what is the answer? it is 42, and nothing else than that."] * 3
    return train_bpe(texts, 290, tmp_path_factory.mktemp("tokenizer") / "t")


@pytest.fixture
def make(tmp_path, tokenizer):
    def make(sources=None, **options):
        sources = sources or {"easy": QuestionList(rows("easy", 20)), "hard": QuestionList(rows("hard", 12))}
        defaults = {"prompts_per_step": 4, "data_dir": str(tmp_path / "data")}
        return PromptDataModule(sources, str(tokenizer), **{**defaults, **options})

    return make


def ready(datamodule):
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def asked(batches):
    return [question.messages[-1]["content"] for batch in batches for question in batch.questions]


class Fussy(Reward):
    """Scores only questions with an even answer."""

    name = "fussy"

    def check(self, question):
        return None if int(question.answer) % 2 == 0 else f"{question.answer} is odd"

    def score(self, groups):
        raise AssertionError("nothing is scored when data is loaded")


class Unable(Fussy):
    """Scores no question."""

    def check(self, question):
        return "no"


def test_a_batch_is_a_step_of_rendered_questions(make):
    data = ready(make())
    batches = list(data.train_dataloader())
    assert [len(batch) for batch in batches] == [4] * 8
    batch = batches[0]
    assert batch.prompts[0].ids == data.format.prompt(batch.questions[0].messages).ids
    assert batch.source.tolist() == [data.domains.index(question.source) for question in batch.questions]
    assert batch.sample_hash.dtype == torch.int64
    assert [prompt.seed % 2**64 for prompt in batch.prompts] == batch.sample_hash.numpy().view(np.uint64).tolist()
    assert isinstance(data.format, ChatFormat)
    assert data.longest_prompt == max(len(prompt.ids) for each in batches for prompt in each.prompts)
    moved = batch.to(torch.device("cpu"))
    assert moved.questions == batch.questions


def test_without_weights_every_question_comes_once_an_epoch(make):
    data = ready(make(epochs=2))
    texts = asked(data.train_dataloader())
    everything = {row["question"] for name, count in (("easy", 20), ("hard", 12)) for row in rows(name, count)}
    assert Counter(texts) == dict.fromkeys(everything, 2)
    assert set(texts[:32]) == everything
    assert texts[:32] != texts[32:]


def test_the_same_question_has_other_answers_when_it_comes_again(make):
    batches = list(ready(make(epochs=2)).train_dataloader())
    seeds = {}
    for batch in batches:
        for question, prompt in zip(batch.questions, batch.prompts, strict=True):
            seeds.setdefault(question.key, set()).add(prompt.seed)
    assert all(len(found) == 2 for found in seeds.values())


def test_weights_mix_difficulties_in_every_step(make):
    sources = {"easy": QuestionList(rows("easy", 20), weight=1), "hard": QuestionList(rows("hard", 12), weight=3)}
    data = ready(make(sources, steps=30, prompts_per_step=8))
    batches = list(data.train_dataloader())
    assert len(batches) == 30
    counts = [Counter(question.source for question in batch.questions) for batch in batches]
    assert all(abs(count["hard"] - 6) <= 1 for count in counts)
    assert abs(sum(count["hard"] for count in counts) - 180) <= 1


def test_stages_change_the_mixture_on_the_way(make):
    stages = [PromptStage("warm", 2, {"easy": 1.0}), PromptStage("main", 3, {"easy": 1.0, "hard": 1.0})]
    batches = list(ready(make(stages=stages)).train_dataloader())
    assert [len(set(batch.source.tolist())) for batch in batches] == [1, 1, 2, 2, 2]


def test_resume_is_one_integer(make):
    whole = asked(ready(make(epochs=2)).train_dataloader())
    data = ready(make(epochs=2))
    for batch in list(data.train_dataloader())[:5]:
        data.advance(int(batch.sample_hash.sum()))
    state = data.state_dict()
    again = ready(make(epochs=2))
    again.load_state_dict(state)
    assert asked(again.train_dataloader()) == whole[20:]
    assert again.chain == data.chain


def test_a_resume_on_other_questions_or_steps_is_refused(make):
    state = ready(make()).state_dict()
    other = make({"easy": QuestionList(rows("easy", 19)), "hard": QuestionList(rows("hard", 12))})
    with pytest.raises(ValueError, match=r"easy.* has changed since the checkpoint"):
        ready(other).load_state_dict(state)
    with pytest.raises(ValueError, match="prompts_per_step was 4 in the checkpoint's run and is 8 here"):
        ready(make(prompts_per_step=8)).load_state_dict(state)


def test_validation_questions_are_held_out_by_their_text(make):
    data = ready(make(validation_fraction=0.25, validation_prompts=5))
    held_out = asked(data.val_dataloader())
    assert 3 <= len(held_out) <= 13
    assert not set(held_out) & set(asked(data.train_dataloader()))
    assert [batch.prompts[0].seed for batch in data.val_dataloader()] == [
        batch.prompts[0].seed for batch in data.val_dataloader()
    ]
    alone = ready(make({"other": QuestionList(rows("easy", 20))}, validation_fraction=0.25))
    assert set(asked(alone.val_dataloader())) == {text for text in held_out if text.startswith("easy")}
    extra = ready(make(validation_sources={"exam": QuestionList(rows("exam", 3))}))
    assert asked(extra.val_dataloader()) == ["exam 0 ?", "exam 1 ?", "exam 2 ?"]
    assert extra.domains == ["easy", "hard", "exam"]
    assert ready(make()).val_dataloader() == []


def test_too_long_prompts_are_counted(make, caplog):
    sources = {"s": QuestionList([*rows("short", 6), {"question": "long " * 200}])}
    with caplog.at_level(logging.WARNING, "nbg_lightning"):
        data = ready(make(sources, max_prompt_tokens=100))
    assert len(set(asked(data.train_dataloader()))) == 6
    assert "1 of 7 prompts are longer than max_prompt_tokens=100" in caplog.text


def test_bad_rows_stop_or_are_counted(make, caplog):
    sources = {"s": QuestionList([*rows("s", 6), {"text": "?"}, {"text": "!"}])}
    with pytest.raises(
        ValueError, match=r"source 's': 2 of 8 rows are not valid questions; first: question 6 of the list.*on_invalid"
    ):
        ready(make(sources))
    with caplog.at_level(logging.WARNING, "nbg_lightning"):
        data = ready(make(sources, on_invalid="drop"))
    assert "2 of 8 rows are not valid questions" in caplog.text
    assert len(set(asked(data.train_dataloader()))) == 6


def test_a_prompt_that_the_template_cannot_render_is_a_bad_row(make):
    sources = {"s": QuestionList([*rows("s", 6), {"messages": [{"role": "wizard", "content": "?"}]}])}
    with pytest.raises(ValueError, match=r"1 of 7 rows are not valid questions; first: .*wizard"):
        ready(make(sources))


def test_questions_that_the_reward_cannot_score(make, caplog):
    data = ready(make())
    with pytest.raises(ValueError, match=r"16 of 32 questions cannot be scored; first, of source 'easy': 1 is odd"):
        data.check(Fussy())
    data = ready(make(on_invalid="drop", validation_fraction=0.25))
    steps = data.curriculum.num_steps
    assert data.check(Fussy()) == 16
    texts = asked(data.train_dataloader()) + asked(data.val_dataloader())
    assert all(int(text.split()[1]) % 2 == 0 for text in texts)
    assert data.curriculum.num_steps == steps  # what callbacks were told at setup stays true
    assert data.check(Fussy()) == 0
    with pytest.raises(ValueError, match="0 questions are left"):
        data.check(Unable())


# -- pass rates ----------------------------------------------------------------------------------------------------------


def ledger(path, passes, n=16, errors=0):
    """A ledger of questions {text: passes}."""
    found = []
    for text, count in passes.items():
        key = Question(({"role": "user", "content": text},)).key
        found.append(PassRate(key, "s", n, count, errors, count / n, 1.0, 0, ""))
    PassRateLedger(found, {"weights": "w", "fingerprint": "0123456789abcdef", "sampling": {"n": n}}).save(path)
    return str(path)


def test_only_strictly_medium_questions_are_kept(make, tmp_path):
    texts = [row["question"] for row in rows("s", 17)]
    file = ledger(tmp_path / "l.parquet", {text: passes for passes, text in enumerate(texts)})
    data = ready(make({"s": QuestionList(rows("s", 17))}, ledger=file))
    kept = {int(text.split()[1]) for text in asked(data.train_dataloader())}
    assert kept == set(range(2, 15))  # 2 to 14 of 16
    wide = ready(make({"s": QuestionList(rows("s", 17))}, ledger=file, pass_rate=PassRateBand(0.0, 1.0)))
    assert {int(text.split()[1]) for text in asked(wide.train_dataloader())} == set(range(1, 16))


@pytest.mark.parametrize(("passes", "fix"), [(0, "never solved: give easier"), (16, "always solved: give harder")])
def test_too_few_left_is_an_error_with_the_histogram(make, tmp_path, passes, fix):
    counts = {row["question"]: 8 if number < 2 else passes for number, row in enumerate(rows("s", 17))}
    data = make({"s": QuestionList(rows("s", 17))}, ledger=ledger(tmp_path / "l.parquet", counts))
    share = "0: 15, 0.4-0.5: 2" if passes == 0 else "0.4-0.5: 2, 1: 15"
    with pytest.raises(ValueError, match=f"2 questions are left, and min_questions is 4 .*{share}.*{fix}"):
        ready(data)


def test_a_weighted_source_that_the_filter_empties_is_named(make, tmp_path):
    counts = {row["question"]: 8 for row in rows("easy", 20)} | {row["question"]: 0 for row in rows("hard", 12)}
    sources = {"easy": QuestionList(rows("easy", 20), weight=1), "hard": QuestionList(rows("hard", 12), weight=3)}
    with pytest.raises(ValueError, match=r"source 'hard' has no question left with 0.1 < pass rate < 0.9 .*0: 12"):
        ready(make(sources, steps=3, ledger=ledger(tmp_path / "l.parquet", counts)))


def test_questions_without_a_scored_answer_are_not_kept(make, tmp_path):
    counts = {row["question"]: 8 for row in rows("s", 8)}
    file = ledger(tmp_path / "l.parquet", counts)
    loaded = PassRateLedger.load(file)
    lost = [PassRate(r.key, "s", 16, 0, 16, None, 1.0, 0, "", "crashed") for r in list(loaded)[:3]]
    PassRateLedger([*loaded, *lost], loaded.about).save(file)  # the later rows win
    data = ready(make({"s": QuestionList(rows("s", 8))}, ledger=file))
    assert {int(text.split()[1]) for text in asked(data.train_dataloader())} == set(range(3, 8))


def test_a_ledger_of_other_weights_is_refused_wherever_they_stand(make, tmp_path):
    texts = [row["question"] for row in rows("s", 8)]
    data = ready(
        make({"s": QuestionList(rows("s", 8))}, ledger=ledger(tmp_path / "l.parquet", dict.fromkeys(texts, 8)))
    )
    data.check_weights("0123456789abcdef")
    with pytest.raises(ValueError, match=r"those of other weights \(w, fingerprint 0123456789abcdef\).*nbg pass-rate"):
        data.check_weights("0123456789abcde0")


def test_a_ledger_of_other_questions_is_refused(make, tmp_path):
    file = ledger(tmp_path / "l.parquet", {row["question"]: 8 for row in rows("easy", 20)})
    with pytest.raises(ValueError, match=r"12 of 12 questions of source 'hard' are not in the ledger .*nbg pass-rate"):
        ready(make(ledger=file))
    with pytest.raises(FileNotFoundError, match="make it by `nbg pass-rate CONFIG`"):
        ready(make(ledger=str(tmp_path / "none.parquet")))


BAD = {
    "no sources": (dict(sources={}), "at least one source"),
    "two lengths": (dict(steps=1, epochs=2.0), "give one of them"),
    "no prompts": (dict(prompts_per_step=0), "prompts_per_step is invalid: 0"),
    "no steps": (dict(steps=0), "steps is invalid: 0"),
    "all held out": (dict(validation_fraction=1.0), "validation_fraction is invalid: 1.0"),
    "one name twice": (dict(validation_sources={"easy": QuestionList([])}), "rename one"),
    "weights of some": (
        dict(sources={"a": QuestionList(rows("a", 4), weight=1), "b": QuestionList(rows("b", 4))}),
        "source 'b' has no weight",
    ),
}


@pytest.mark.parametrize(("options", "problem"), BAD.values(), ids=BAD)
def test_settings_that_cannot_be(tokenizer, options, problem):
    defaults = {"sources": {"easy": QuestionList(rows("easy", 4))}, "tokenizer": str(tokenizer), "prompts_per_step": 2}
    with pytest.raises(ValueError, match=problem):
        PromptDataModule(**{**defaults, **options})


def test_what_setup_finds(make):
    with pytest.raises(ValueError, match="source 's' has no question left of 0 rows"):
        ready(make({"s": QuestionList([])}))
    with pytest.raises(ValueError, match="stages mix unknown sources other; there are: easy, hard"):
        ready(make(stages=[PromptStage("a", 1, {"other": 1.0})]))
    with pytest.raises(ValueError, match="2 questions are left, and min_questions is 4; give more questions"):
        ready(make({"s": QuestionList(rows("s", 2))}))
    assert len(list(ready(make({"s": QuestionList(rows("s", 2))}, min_questions=1, steps=3)).train_dataloader())) == 3


def test_difficulties_of_a_reasoning_gym_task_are_sources(make):
    def sums(terms):
        return ReasoningGymQuestions(
            ["chain_sum"], 8, config={"chain_sum": {"min_terms": terms, "max_terms": terms}}, weight=1
        )

    data = ready(make({"two": sums(2), "three": sums(3)}, steps=2))
    for batch in data.train_dataloader():
        for question in batch.questions:
            terms = question.data["entry"]["metadata"]["num_terms"]
            assert terms == {"two": 2, "three": 3}[question.source]


def test_a_test_without_held_out_questions_is_refused(make):
    data = ready(make())
    data.trainer = Trainer(logger=False, accelerator="cpu")
    data.trainer.state.fn = TrainerFn.TESTING
    with pytest.raises(ValueError, match=r"no question is held out; set data\.validation_sources"):
        data.test_dataloader()
