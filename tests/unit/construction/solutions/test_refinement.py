"""The refinement loop with scripted engines: stops, retries, refusals, restarts."""

import json
import re

import pytest

from nbg_lightning.construction.chat_models import ChatModelConfig
from nbg_lightning.construction.provenance import describe
from nbg_lightning.construction.scheduler import MAX_FAILURES
from nbg_lightning.construction.solutions.refinement import RefinementBuilder
from nbg_lightning.data.question_sources import QuestionList
from nbg_lightning.engines.protocol import Completion, Sampling
from nbg_lightning.testing.benchmarks import AnsweringEngine

CHECKLIST = "- [correctness] The sum is right.\n- [completeness] It is a word.\n- [safety] No harm."


class Told(AnsweringEngine):
    """Answers by the kind of question: checklist, draft, evaluation, revision. Values are texts or functions of the prompt."""

    interface = "chat"

    def __init__(self, **answers):
        super().__init__(self._answer)
        self.told = {"checklist": CHECKLIST, "draft": "v5", "evaluation": graded, "revision": improved, **answers}
        self.asked = []

    def _answer(self, prompt, sample):
        starts = {"Write a checklist": "checklist", "Judge the answer": "evaluation", "Rewrite the answer": "revision"}
        kind = next((kind for start, kind in starts.items() if prompt.text.startswith(start)), "draft")
        self.asked.append((kind, prompt.text, prompt.seed))
        answer = self.told[kind]
        return answer(prompt.text) if callable(answer) else answer


def version(text):
    return int(re.search(r"Answer:\nv(\d+)", text)[1])


def graded(text):
    """An answer vN has N points in everything."""
    return "\n".join(f"{n}: {min(9, version(text))} - so" for n in (1, 2, 3)) + "\nCritique: higher"


def improved(text):
    return f"v{version(text) + 1}"


def scores(*given):
    return "\n".join(f"{number}: {score}" for number, score in enumerate(given, 1))


def build(folder, engines=None, questions=3, **settings):
    engines = engines or {"m": Told()}
    names = list(engines)
    items = questions if isinstance(questions, list) else [{"question": f"Add {n} and 2."} for n in range(questions)]
    given = {
        "drafters": names,
        "evaluators": names,
        "reviser": names[0],
        "models": {name: ChatModelConfig(engine) for name, engine in engines.items()},
        "questions": {"sums": QuestionList(items)},
        "progress": False,
        **settings,
    }
    return RefinementBuilder(out=str(folder), **given)


def rows(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_rewrites_until_the_threshold(tmp_path):
    report = build(tmp_path, threshold=8, rounds=5).run()
    assert report["stops"] == {"threshold": 3}
    assert report["rounds"] == {"3": 3}
    assert report["mean_score"] == 8
    assert report["mean_gain"] == 3
    refined = rows(tmp_path, "refined")
    assert [row["messages"] for row in refined] == [
        [{"role": "user", "content": f"Add {n} and 2."}, {"role": "assistant", "content": "v8"}] for n in range(3)
    ]
    trace = rows(tmp_path, "traces")[0]
    assert [each["text"] for each in trace["candidates"]] == ["v5", "v6", "v7", "v8"]
    assert [each["score"] for each in trace["candidates"]] == [5, 6, 7, 8]
    assert trace["checklist"]["source"] == "made for the instruction"
    assert [entry["step"] for entry in trace["trace"]][:4] == [
        "checklist",
        "draft/m/0",
        "evaluation/draft/m/0/m",
        "revision/1",
    ]


def test_the_rewriter_sees_scores_remarks_and_critique(tmp_path):
    engine = Told()
    build(tmp_path, {"m": engine}, questions=1, rounds=1).run()
    [(_, text, _)] = [each for each in engine.asked if each[0] == "revision"]
    assert "1. [correctness] The sum is right. Score: 5 (so)" in text
    assert "- higher" in text
    assert "Instruction:\nAdd 0 and 2." in text


def test_stops_without_gain_and_keeps_the_better(tmp_path):
    engine = Told(revision=lambda text: "v1")
    report = build(tmp_path, {"m": engine}, questions=1).run()
    assert report["stops"] == {"no_gain": 1}
    [row] = rows(tmp_path, "refined")
    assert row["messages"][-1]["content"] == "v5"
    assert row["refinement"]["rounds"] == 1
    assert row["refinement"]["candidate"] == "draft/m/0"


def test_stops_at_the_limit_of_rounds(tmp_path):
    report = build(tmp_path, {"m": Told(draft="v1")}, questions=1, rounds=2).run()
    assert report["stops"] == {"round_limit": 1}
    assert rows(tmp_path, "refined")[0]["messages"][-1]["content"] == "v3"
    report = build(tmp_path / "none", questions=1, rounds=0).run()
    assert report["stops"] == {"round_limit": 1}
    assert rows(tmp_path / "none", "refined")[0]["messages"][-1]["content"] == "v5"


def test_a_good_draft_is_not_rewritten(tmp_path):
    engine = Told(draft="v9")
    report = build(tmp_path, {"m": engine}, questions=1).run()
    assert report["stops"] == {"threshold": 1}
    assert report["rounds"] == {"0": 1}
    assert all(kind != "revision" for kind, _, _ in engine.asked)


def test_the_best_draft_of_several_engines(tmp_path):
    engines = {"weak": Told(draft="v2"), "strong": Told(draft="v7")}
    build(tmp_path, engines, questions=1, rounds=0, drafting=Sampling(n=2)).run()
    [trace] = rows(tmp_path, "traces")
    assert [each["name"] for each in trace["candidates"]] == [
        f"draft/{w}/{n}" for w in ("weak", "strong") for n in (0, 1)
    ]
    assert trace["solution"] == "v7"
    assert set(trace["candidates"][0]["evaluations"]) == {"weak", "strong"}


def test_an_evaluator_that_gives_no_scores_is_no_zero(tmp_path):
    engines = {"good": Told(), "broken": Told(evaluation="Looks fine to me!")}
    report = build(tmp_path, engines, questions=1, rounds=0, tries=3).run()
    [trace] = rows(tmp_path, "traces")
    assert trace["refinement"]["score"] == 5
    assert all(set(each["evaluations"]) == {"good"} for each in trace["candidates"])
    assert report["answers"]["evaluation"]["unparsable"]["count"] == 2 * 3  # two drafts, three tries
    strict = build(tmp_path / "strict", engines, questions=1, minimum_evaluators=2).run()
    assert strict["outcomes"]["evaluation_unparsable"]["count"] == 1
    assert rows(tmp_path / "strict", "refined") == []


@pytest.mark.parametrize("answer", [scores(9, 9, 10), scores(9, 9, -1), scores(9, 9)])
def test_scores_outside_the_scale_are_drawn_again_and_counted(tmp_path, answer):
    drawn = []

    def second_time(text):
        drawn.append(text)
        return answer if len(drawn) == 1 else scores(6, 6, 6)

    report = build(tmp_path, {"m": Told(evaluation=second_time)}, questions=1, rounds=0).run()
    outcomes = report["answers"]["evaluation"]
    assert outcomes["ok"]["count"] == 1
    assert sum(each["count"] for each in outcomes.values()) == 2
    assert rows(tmp_path, "refined")[0]["refinement"]["score"] == 6


def test_an_evaluator_that_gives_back_the_example_is_no_evaluator(tmp_path):
    engine = Told(evaluation="1: 9 - the result is five\n2: 3 - the result is a digit\n3: 3 - so\nCritique: none")
    report = build(tmp_path, {"m": engine}, questions=1).run()
    assert report["outcomes"]["evaluation_copied"]["count"] == 1
    assert report["answers"]["evaluation"] == {"copied": report["answers"]["evaluation"]["copied"]}
    report = build(tmp_path / "all", {"m": engine}, questions=1, rounds=0, reject_copies=False).run()
    assert report["mean_score"] == 5


def test_tries_are_drawn_by_other_seeds(tmp_path):
    engine = Told(evaluation="?")
    build(tmp_path, {"m": engine}, questions=1, tries=3).run()
    seeds = [seed for kind, _, seed in engine.asked if kind == "evaluation"]
    assert len(set(seeds)) == 3


def test_refusals_are_counted_and_dropped(tmp_path):
    engine = Told(draft=lambda text: "I'm sorry, but I can't help with that." if "Add 1" in text else "v9")
    report = build(tmp_path, {"m": engine}).run()
    assert report["outcomes"]["draft_refused"]["count"] == 1
    assert report["outcomes"]["kept"]["count"] == 2
    assert report["answers"]["draft"]["refused"]["count"] == 3  # every try
    assert len(rows(tmp_path, "traces")) == 3


def test_an_answer_that_is_cut_off_or_empty_is_no_draft(tmp_path):
    cut = Completion((), (), "length", 0, 0, 0, text="The sum of")
    for name, answer, reason in (("cut", cut, "draft_truncated"), ("empty", "  \n", "draft_empty")):
        report = build(tmp_path / name, {"m": Told(draft=answer)}, questions=1).run()
        assert report["outcomes"][reason]["count"] == 1


def test_reasoning_of_a_draft_is_not_part_of_it(tmp_path):
    build(tmp_path, {"m": Told(draft="<think>\nhm v3\n</think>\n\nv9")}, questions=1).run()
    assert rows(tmp_path, "refined")[0]["messages"][-1]["content"] == "v9"
    report = build(tmp_path / "endless", {"m": Told(draft="<think>\nhm")}, questions=1).run()
    assert report["outcomes"]["draft_truncated"]["count"] == 1


def test_without_a_checklist_the_general_one_or_none(tmp_path):
    engine = Told(checklist="no idea", evaluation=scores(9, 9, 9, 9, 9))
    report = build(tmp_path, {"m": engine}, questions=1).run()
    assert report["checklists"] == {"general": 1}
    assert report["answers"]["checklist"]["unparsable"]["count"] == 3
    report = build(tmp_path / "strict", {"m": engine}, questions=1, general_checklist=False).run()
    assert report["outcomes"]["checklist_unparsable"]["count"] == 1


def test_low_scores_can_be_dropped(tmp_path):
    report = build(tmp_path, questions=2, rounds=0, minimum_score=6).run()
    assert report["outcomes"] == {"low_score": {"count": 2, "first": "5.00"}}
    assert report["rows"] == {"refined": 0, "traces": 2}


def test_inputs_that_are_no_instructions(tmp_path):
    given = [{"question": "Add."}, {"question": ""}, {"nothing": 1}, {"question": "x" * 500}, {"question": "Add."}]
    report = build(tmp_path, questions=given, max_characters=100).run()
    became = {kind: each["count"] for kind, each in report["outcomes"].items()}
    assert became == {"kept": 1, "invalid": 2, "too_long": 1, "duplicate": 1}
    assert report["input"]["sums"]["seen"] == 5


def test_braces_in_texts_are_left_alone(tmp_path):
    engine = Told(draft="{answer} {x}", evaluation=scores(9, 9, 9))
    build(tmp_path, {"m": engine}, questions=[{"question": "What is {checklist} in {}?"}]).run()
    [(_, text, _)] = [each for each in engine.asked if each[0] == "evaluation"]
    assert "Instruction:\nWhat is {checklist} in {}?" in text
    assert "Answer:\n{answer} {x}" in text


# -- restarts ------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


def test_a_restart_asks_nothing_twice_and_ends_the_same(tmp_path):
    whole = Told()
    build(tmp_path / "whole", {"m": whole}, questions=7, items_per_batch=3).run()
    for after in (1, 4, 9, 17):
        answered = []

        def fail(text, after=after, answered=answered):
            if len(answered) >= after:
                raise Killed
            answered.append(text)
            return graded(text)

        folder = tmp_path / f"killed-{after}"
        first, second = Told(evaluation=fail), Told()
        with pytest.raises(Killed):
            build(folder, {"m": first}, questions=7, items_per_batch=3).run()
        kept = {json.loads(line)["key"] for line in (folder / "answers.jsonl").read_text().splitlines()}
        build(folder, {"m": second}, questions=7, items_per_batch=3).run()
        assert len(second.asked) == len(whole.asked) - len(kept)
        for name in ("refined", "traces"):
            assert (folder / f"{name}.jsonl").read_bytes() == (tmp_path / "whole" / f"{name}.jsonl").read_bytes()
        answers = [json.loads(line)["key"] for line in (folder / "answers.jsonl").read_text().splitlines()]
        assert len(answers) == len(set(answers)) == len(whole.asked)


def test_a_finished_build_asks_nothing(tmp_path):
    build(tmp_path).run()
    before = (tmp_path / "refined.jsonl").read_bytes()
    engine = Told()
    report = build(tmp_path, {"m": engine}).run()
    assert engine.asked == []
    assert report["this_run"] == {"asked": 0, "from_journal": 0}
    assert (tmp_path / "refined.jsonl").read_bytes() == before


def test_a_limit_can_be_raised(tmp_path):
    build(tmp_path, questions=5, limit=2).run()
    engine = Told()
    report = build(tmp_path, {"m": engine}, questions=5, limit=4).run()
    assert report["items"] == 4
    assert {text for kind, text, _ in engine.asked if kind == "draft"} == {"Add 2 and 2.", "Add 3 and 2."}


def test_the_seed_decides_what_is_drawn(tmp_path):
    seeds = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        engine = Told()
        build(tmp_path / name, {"m": engine}, seed=seed, items_per_batch=1 if name == "b" else 16).run()
        seeds.append(sorted(engine.asked))
    assert seeds[0] == seeds[1]  # whatever else is requested
    assert not {seed for *_, seed in seeds[0]} & {seed for *_, seed in seeds[2]}


def test_other_settings_need_another_folder(tmp_path):
    build(tmp_path, threshold=8).run()
    with pytest.raises(ValueError, match=r"settings\.threshold: 8 there, 7 here"):
        build(tmp_path, threshold=7).run()


# -- engines -------------------------------------------------------------------------------------------------------------


def test_failed_items_are_tried_again_by_the_next_run(tmp_path):
    wrong = Completion((), (), "error", 0, 0, 0, "no route to host")
    engine = Told(draft=lambda text: wrong if "Add 1" in text else "v9")
    report = build(tmp_path, {"m": engine}).run()
    assert report["outcomes"]["engine_error"] == {"count": 1, "first": "no route to host"}
    second = Told(draft="v9")
    report = build(tmp_path, {"m": second}).run()
    assert report["outcomes"] == {"kept": {"count": 3}}
    assert {text for kind, text, _ in second.asked if kind == "draft"} == {"Add 1 and 2."}


def test_an_engine_that_fails_for_ever_ends_the_build(tmp_path):
    wrong = Completion((), (), "error", 0, 0, 0, "no route to host")
    engine = Told(draft=wrong, checklist=wrong)
    with pytest.raises(
        RuntimeError, match="responses failed \\(no route to host\\); fix its engine and run the same command"
    ):
        build(tmp_path, {"m": engine}, questions=MAX_FAILURES).run()


def test_engines_are_left_also_after_an_error(tmp_path):
    class Open(Told):
        entered = left = 0

        def __enter__(self):
            self.entered += 1
            return self

        def __exit__(self, *_):
            self.left += 1

    def broken(text):
        raise OSError("disk")

    engine = Open(draft=broken)
    with pytest.raises(OSError, match="disk"):
        build(tmp_path, {"m": engine}).run()
    assert (engine.entered, engine.left) == (1, 1)


def test_an_engine_without_weights_gets_those_of_its_folder(tmp_path):
    """As `VLLMEngine`, which starts from random ones."""
    from nbg_lightning.core import create_model, preset
    from nbg_lightning.core.hf_folder import write_hugging_face
    from nbg_lightning.core.weight_sources import LiveWeights

    class Empty(Told):
        weight_version, folder, weights = -1, None, None

        def sync(self, weights, version):
            self.weights, self.weight_version = dict(weights), version

    with pytest.raises(ValueError, match="engine is invalid: Empty without weights; give it the folder"):
        build(tmp_path / "none", {"m": Empty(draft="v9")}).run()
    model = create_model(preset("nano"))
    write_hugging_face(LiveWeights(model), tmp_path / "model", {}, None, "float32", 10**9, None)
    engine = Empty(draft="v9")
    engine.folder = str(tmp_path / "model")
    build(tmp_path / "build", {"m": engine}).run()
    assert engine.weight_version == 0
    assert engine.weights["model.embed_tokens.weight"].equal(model.tok_embeddings.weight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drafters": ["nobody"]}, "drafters is invalid: 'nobody' is none of the models (m)"),
        ({"evaluators": []}, "evaluators is invalid: empty"),
        ({"evaluators": ["m", "m"]}, "evaluators is invalid: ['m', 'm']"),
        ({"threshold": 10}, "threshold is invalid: 10; give 0 to 9"),
        ({"rounds": -1}, "rounds is invalid: -1"),
        ({"minimum_criteria": 9}, "minimum_criteria is invalid: 9"),
        ({"minimum_evaluators": 2}, "minimum_evaluators is invalid: 2"),
        ({"items_per_batch": 0}, "items_per_batch is invalid: 0"),
        ({"revision_prompt": "Rewrite {answer}"}, "revision_prompt is invalid: its fields are answer"),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(tmp_path, **settings)


def test_secrets_are_not_written(tmp_path):
    from nbg_lightning.engines.server import ServerEngine

    said = describe(ChatModelConfig(ServerEngine("http://x/v1", api_key="sk-secret")))
    assert said["engine"]["url"] == "http://x/v1"
    assert "secret" not in json.dumps(said)
