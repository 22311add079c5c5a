"""Ask lm-eval (its gsm8k and minerva_math tasks) and math-verify about the table of forms; write where they differ.

The last column says why the verdict of this library holds. Each reader has five seconds of processor time an answer, in a process
of its own: one that is not done by then is killed, and what it says is "no answer in 5 s".

python tests/unit/scoring/other_readers.py        # writes forms_elsewhere.tsv beside this file
"""

import ast
import importlib.util
import logging
import multiprocessing
import re
import resource
from multiprocessing.connection import Connection
from pathlib import Path

from answer_forms import CASES
from math_verify import parse, verify

from nbg_lightning.scoring.mathematics.reader import read
from nbg_lightning.scoring.mathematics.values import Collection, Equation, Number, Text, Unread, Value

SECONDS = 5
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = re.compile(r",|\$|(?s:.*)#### |\.$")


def _minerva() -> dict:
    """The normalization of lm-eval's minerva_math, without its imports, which want an older antlr4."""
    package = importlib.util.find_spec("lm_eval")
    path = Path(package.origin).parent / "tasks" / "minerva_math" / "utils.py"
    names = {"SUBSTITUTIONS", "REMOVED_EXPRESSIONS", "normalize_final_answer"}
    wanted = [
        node
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.Assign)
        and names & {node.name if isinstance(node, ast.FunctionDef) else node.targets[0].id}
    ]
    space = {"re": re}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), space)
    return space


_NORMALIZED = _minerva()["normalize_final_answer"]


def gsm8k(gold: str, answer: str) -> bool:
    """The filter flexible-extract and the comparison of lm-eval's gsm8k.yaml."""
    found = _FLEXIBLE.findall(f"The answer is {answer}")
    last = next(filter(None, found[-1])) if found else "[invalid]"
    return _IGNORED.sub("", last).lower() == _IGNORED.sub("", gold).lower()


def minerva(gold: str, answer: str) -> bool:
    return _NORMALIZED(answer) == _NORMALIZED(gold)


def math_verify(gold: str, answer: str) -> bool | str:
    try:
        one, two = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (gold, answer))
        return bool(verify(one, two, timeout_seconds=None))
    except Exception as error:
        return type(error).__name__


READERS = {"lm-eval gsm8k": gsm8k, "lm-eval minerva": minerva, "math-verify": math_verify}


class Child:
    """A process that runs readers; it is restarted when one does not end."""

    def __init__(self) -> None:
        self.process: multiprocessing.Process | None = None

    def verdict(self, reader: str, gold: str, answer: str) -> bool | str:
        """What the reader says, or that it says nothing in its time."""
        if self.process is None:
            self.pipe, other = multiprocessing.Pipe()
            self.process = multiprocessing.get_context("fork").Process(target=_serve, args=(other,), daemon=True)
            self.process.start()
            other.close()
        self.pipe.send((reader, gold, answer))
        try:
            return self.pipe.recv()
        except EOFError:  # it used its time
            self.process.join()
            self.process = None
            return f"no answer in {SECONDS} s"


def _serve(pipe: Connection) -> None:
    logging.disable(logging.WARNING)
    while True:
        reader, gold, answer = pipe.recv()
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + SECONDS + 1  # the kernel ends the process there
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        pipe.send(READERS[reader](gold, answer))


def reason(gold: str, answer: str, right: bool) -> str:
    """Why the verdict of this library holds, by what both are."""
    one, two = read(gold), read(answer)
    if isinstance(two, Unread):
        return "the same text" if right else f"no single answer: {two.reason.replace(chr(9), ' ')}"
    if isinstance(one, Text) or isinstance(two, Text):
        return "the same words, but for case and punctuation" if right else "other words, or words for mathematics"
    if isinstance(one, Collection) or isinstance(two, Collection):
        return _reason_of_collections(one, two, right)
    if isinstance(one, Equation) or isinstance(two, Equation):
        return "the same equation, or the value that it gives" if right else "another equation or value, or a false one"
    assert isinstance(one, Number) and isinstance(two, Number)
    if one.percent or two.percent:
        return (
            "a percent sign is left out, or is a hundredth"
            if right
            else "neither the same percentage nor the same share"
        )
    if one.unit != two.unit:
        return "a unit of the same quantity, or left out" if right else "another quantity, or as much of another unit"
    if one.base or two.base:
        return "the same digits in the same base, or in none" if right else "other digits, or another base"
    if right:
        return "exactly the same value; words that are no measure do not count"
    return "another exact value: a rounded one is another, and a variable is no unit"


def _reason_of_collections(one: Value, two: Value, right: bool) -> str:
    if not (isinstance(one, Collection) and isinstance(two, Collection)):
        return "a set of one is its element" if right else "one is a list, tuple, interval or matrix, the other is none"
    if one.ordered:
        return (
            "the same coordinates or ends in the same order" if right else "other coordinates, order, brackets or shape"
        )
    return "the same elements in any order" if right else "other elements, or an interval for a list"


if __name__ == "__main__":
    child = Child()
    lines = ["\t".join(("gold", "answer", "right", *READERS, "reason"))]
    for gold, answer, right in CASES:
        verdicts = [child.verdict(reader, gold, answer) for reader in READERS]
        if any(verdict != right for verdict in verdicts):
            lines.append("\t".join(map(str, (gold, answer, right, *verdicts, reason(gold, answer, right)))))
    Path(__file__).with_name("forms_elsewhere.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{len(lines) - 1} of {len(CASES)} forms are judged otherwise somewhere")
