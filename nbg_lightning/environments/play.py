"""Playing episodes on any open engine, for suites, pass rates and data builders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from nbg_lightning.data.question import Question
from nbg_lightning.engines.capabilities import interface_of, window_of
from nbg_lightning.engines.chat import ChatFormat, with_stops
from nbg_lightning.engines.protocol import Completion, Engine, Prompt, Sampling
from nbg_lightning.environments.driver import EpisodeDriver
from nbg_lightning.environments.episode import Episode

Draw = Callable[[Sequence[Prompt], Sampling, "float | None"], list[list[Completion]]]
"""Like `Engine.generate`: completions within a number of seconds, or without a limit."""


def check_episodes(engine: Engine, format: ChatFormat | None, name: str) -> None:
    """Raise for an engine or a format that does not support episodes.

    Args:
        engine: engine that would sample the turns.
        format: the chat format; None for text completion.
        name: name of the component that needs episodes, for the message.

    Raises:
        ValueError: with what to do.
    """
    if interface_of(engine) != "ids":
        raise ValueError(
            f"{name} plays episodes on token ids, and {type(engine).__name__} has the interface {interface_of(engine)!r}; "
            "use NativeEngine, VLLMEngine, LocalEngine, or a server with interface: ids"
        )
    if format is None or format.renderer is None:
        raise ValueError(
            f"{name} plays episodes in a chat format, and there is none; set the format to nanbeige, tokenizer, or a template"
        )


def play_episodes(
    driver: EpisodeDriver,
    engine: Engine,
    questions: Sequence[Question],
    prompts: Sequence[Prompt],
    format: ChatFormat,
    sampling: Sampling,
    deadline: float | None = None,
    draw: Draw | None = None,
) -> list[tuple[Episode, ...]]:
    """Play ``sampling.n`` episodes of each question. Collective; a rank may have no questions.

    Args:
        driver: driver of the environment; it must be open.
        engine: it must be open, and accept token ids.
        questions: questions to open environments with.
        prompts: prompts of the questions, whose seeds determine the samples.
        format: the chat format; its stop tokens end a turn.
        sampling: sampling settings of a turn.
        deadline: seconds for everything; None is unlimited.
        draw: samples instead of the engine, so that failures can be caught.
    """
    draw_turns = engine.generate if draw is None else draw
    driver.window = window_of(engine)

    def generate(turns: Sequence[Prompt], how: Sampling, seconds: float) -> list[list[Completion]]:
        return draw_turns(turns, how, None if math.isinf(seconds) else seconds)

    stopped = with_stops(sampling, format.stop_ids)
    played = driver.play(questions, prompts, format, stopped, generate, math.inf if deadline is None else deadline)
    if played is None:
        raise RuntimeError("a signal asked to stop while episodes were played; resume, and they are played again")
    return played
