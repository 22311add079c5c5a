"""Sample answers and groups."""

from nbg_lightning.data.question import Question
from nbg_lightning.engines.chat import Answer
from nbg_lightning.engines.protocol import Completion
from nbg_lightning.rewards.protocol import Group


def written(text, reasoning=None, final="", finish_reason="stop"):
    """An answer; its final part is the text unless another is given."""
    completion = Completion((1,), (0.0,), finish_reason, 0, 0, 0, text=text)
    return Answer(completion, text, reasoning, text if final == "" else final)


UNENDING = written("<think>still thinking", final=None)


def asked(answer=None, source="own", **data):
    return Question(({"role": "user", "content": "What is it?"},), answer, source, data)


def group(question, *texts):
    return Group(question, tuple(written(text) if isinstance(text, str) else text for text in texts))


def scores(results):
    return [[result.score for result in row] for row in results]
