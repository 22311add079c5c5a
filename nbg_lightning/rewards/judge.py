"""A judge model for rewards: opened together with them, and its failures never make them raise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nbg_lightning.data.tokenizer import load_tokenizer
from nbg_lightning.engines.chat import Answer, ChatModel, Template
from nbg_lightning.engines.protocol import Engine, Sampling
from nbg_lightning.error_line import first_line


class Judge:
    """Answers single-turn prompts greedily while it is open.

    Args:
        engine: engine of the judge model.
        tokenizer: the judge's tokenizer (a folder, a name, or a checkpoint of this library), if the engine takes token ids.
        template: the judge's chat format.
        deadline: seconds for the judgements of a call.
    """

    def __init__(self, engine: Engine, tokenizer: str | None, template: Template, deadline: float | None):
        self.engine, self.tokenizer, self.template, self.deadline = engine, tokenizer, template, deadline
        self._model: ChatModel | None = None

    @property
    def is_open(self) -> bool:
        return self._model is not None

    def __enter__(self) -> Judge:
        tokenizer = None if self.tokenizer is None else load_tokenizer(self.tokenizer)
        self._model = ChatModel(self.engine.__enter__(), tokenizer, self.template)
        return self

    def __exit__(self, *error: object) -> None:
        self._model = None
        self.engine.__exit__(*error)

    def ask(self, prompts: Sequence[str], max_new_tokens: int) -> list[Answer | str]:
        """The judge's answer to each prompt, or the reason why there is none."""
        assert self._model is not None
        if not prompts:
            return []
        conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
        try:
            return [written[0] for written in self._model.write(conversations, sampling, self.deadline)]
        except Exception as error:
            return [f"the judge failed ({first_line(error)})"] * len(prompts)


def judgement_text(said: Answer | str) -> str:
    """The text of a judge's answer, without its reasoning.

    Raises:
        ValueError: there is none, with the reason.
    """
    if isinstance(said, str):
        raise ValueError(said)
    if said.completion.finish_reason in ("error", "deadline"):
        raise ValueError(f"the judge did not finish ({said.completion.error or said.completion.finish_reason})")
    if said.final is None:
        raise ValueError("the judge did not finish its reasoning; give it more judge_tokens")
    return said.final


def conversation_text(messages: Iterable[Mapping[str, Any]]) -> str:
    """A conversation in the format that judges read and are trained on (`nbg build-comparisons`).

    Example:
        >>> conversation_text([{"role": "user", "content": "2+2?"}])
        'user: 2+2?'
    """
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in messages)
