"""`nbg data preview`: print the first samples of a config's data as the model will see them.

Conversations and pairs are shown with their trained tokens, questions and benchmark items with the prompt that the model gets,
texts packed into windows. Only the beginning of each source is read, and nothing is written but a trained tokenizer.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from nbg_lightning.commands.parser import CommandParser
from nbg_lightning.commands.preview_texts import DEFAULT_WINDOW, Look, lengths_and_packing, quantiles, special_tokens
from nbg_lightning.commands.settings import make_datamodule, read_config
from nbg_lightning.printable import printable
from nbg_lightning.quantities import count_text

if TYPE_CHECKING:
    from lightning.pytorch import LightningDataModule
    from rich.text import Text

    from nbg_lightning.chat.renderer import RenderCounts, Renderer
    from nbg_lightning.data.chat_sources import ChatPart, ChatSource
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.datamodules.chat import ChatDataModule
    from nbg_lightning.datamodules.curriculum import CurriculumDataModule
    from nbg_lightning.datamodules.preference import PreferenceDataModule
    from nbg_lightning.datamodules.questions import QuestionDataModule
    from nbg_lightning.datamodules.rendered import RenderedDataModule

SHOWN_CHARACTERS = 4000  # of a text


def main(argv: list[str]) -> int:
    """Print the first samples of each source, with trained tokens in colour, lengths, packing and warnings."""
    if argv[:1] != ["preview"]:
        outer = CommandParser(prog="nbg data", description=__doc__)
        outer.add_subparsers(dest="command", required=True).add_parser("preview", help=main.__doc__)
        outer.parse_args(argv)  # ends: it prints help, or names the mistake
    arguments = parser().parse_args(argv[1:])
    for option, value, least in (("--samples", arguments.samples, 0), ("--look-at", arguments.look_at, 1)):
        if value < least:
            raise ValueError(f"{option} is invalid: {value}; give at least {least}")
    config = read_config(arguments.config)
    datamodule = make_datamodule(config, " ".join(arguments.config))
    weights = ((config.get("model") or {}).get("init_args") or {}).get("base_weights")
    print_preview(datamodule, arguments.samples, arguments.look_at, arguments.source, window_length(config), weights)
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of ``preview``."""
    made = CommandParser(prog="nbg data preview", description=main.__doc__)
    made.add_argument("config", nargs="+", help="configs of `nbg fit`, merged from left to right")
    made.add_argument("--samples", type=int, default=2, help="samples to print per source (default 2)")
    made.add_argument("--look-at", type=int, default=1000, help="samples to read per source (default 1000)")
    made.add_argument("--source", help="show only this source")
    return made


def print_preview(
    data: LightningDataModule,
    num_samples: int,
    look_at: int,
    only: str | None = None,
    window: int = DEFAULT_WINDOW,
    weights: str | None = None,
) -> list[str]:
    """Prints every source, and returns the warnings.

    Args:
        data: the datamodule; its sources are read from their beginning, and nothing is written but a tokenizer.
        num_samples: samples printed of each source.
        look_at: samples that lengths, packing and warnings are made from.
        only: name of the one source to show.
        window: tokens of a pretraining window, which the datamodule does not know: stages decide it.
        weights: of the model that a benchmark asks, which may have the tokenizer.

    Raises:
        ValueError: a source that is not there, or a datamodule of another kind.
    """
    from rich.console import Console
    from rich.text import Text

    from nbg_lightning.commands.benchmark_preview import benchmark_preview
    from nbg_lightning.datamodules.benchmark import BenchmarkDataModule
    from nbg_lightning.datamodules.chat import ChatDataModule
    from nbg_lightning.datamodules.curriculum import CurriculumDataModule
    from nbg_lightning.datamodules.preference import PreferenceDataModule
    from nbg_lightning.datamodules.questions import QuestionDataModule

    kinds: list[tuple[type, Callable[[Any, Look], Callable[[str, Any], list[str]]]]] = [
        (PreferenceDataModule, pair_preview),
        (ChatDataModule, chat_preview),
        (QuestionDataModule, prompt_preview),
        (CurriculumDataModule, text_preview),
        (BenchmarkDataModule, benchmark_preview),
    ]
    kind = next((preview for found, preview in kinds if isinstance(data, found)), None)
    if kind is None:
        names = ", ".join(found.__name__ for found, _ in kinds)
        raise ValueError(f"{type(data).__name__} has nothing to preview; give a config with {names}")
    console = Console()
    sources = _sources(data)
    if only is not None and only not in sources:
        raise ValueError(f"--source is invalid: {only}; there are {', '.join(sources)}")
    show = kind(data, Look(console, num_samples, look_at, window, weights))
    warnings = []
    for name, source in sources.items():
        if only in (None, name):
            console.rule(Text(f"{name} ({type(source).__name__})"))
            warnings += [f"{name}: {warning}" for warning in show(name, source)]
    return warnings


def _sources(data: LightningDataModule) -> dict[str, Any]:
    """What is shown one after the other, by name: sources, or a suite's benchmarks."""
    from nbg_lightning.datamodules.benchmark import BenchmarkDataModule

    if isinstance(data, BenchmarkDataModule):
        return {str(each.name): each for each in data.suite.benchmarks}
    found: dict[str, Any] = data.sources  # type: ignore[attr-defined]  # those of all other kinds have sources
    return found


@dataclass(frozen=True)
class Prepared:
    """What rows are rendered with.

    Attributes:
        tokenizer: of the config.
        renderer: which counts what the run may refuse.
        chat_format: the format, and why it is that.
        warning: what is odd about it; empty if nothing is.
    """

    tokenizer: Tokenizer
    renderer: Renderer
    chat_format: str
    warning: str


def prepare(data: RenderedDataModule) -> Prepared:
    """The tokenizer of a datamodule, and a renderer that counts what the run may refuse."""
    tokenizer = data.load_tokenizer()
    chosen = data.choose_template(tokenizer)
    renderer = chosen.template.renderer(tokenizer.transformers, data.options)
    overflow = "drop" if renderer.options.overflow == "error" else renderer.options.overflow
    renderer.options = replace(renderer.options, on_invalid="drop", overflow=overflow)
    return Prepared(tokenizer, renderer, f"{chosen.template.described} ({chosen.reason})", chosen.warning or "")


def _begin(data: RenderedDataModule, look: Look) -> tuple[Tokenizer, Renderer]:
    """What `prepare` makes, after its format and special tokens have been printed."""
    from rich.text import Text

    from nbg_lightning.chat.preview import print_warnings

    made = prepare(data)
    look.console.print(Text(printable(f"chat format: {made.chat_format}")))
    if made.warning:
        print_warnings(look.console, [made.warning])
    look.console.print(Text(special_tokens(made.tokenizer), style="dim"))
    return made.tokenizer, made.renderer


def _refused(data: RenderedDataModule, counts: RenderCounts, noun: str) -> list[str]:
    """Problems that stop the run, or leave no data for it."""
    found = []
    if not counts.rendered:
        first = "".join(f"; first: {error}" for error in (*counts.errors, *counts.dropped_long)[:1])
        found.append(f"no {noun} is left; {counts.summary()}{first}")
    if counts.invalid and data.options.on_invalid == "error":
        found.append(
            f"a run stops at the first of the {counts.invalid} invalid samples: set on_invalid to drop, or fix them"
        )
    if counts.too_long and data.options.overflow == "error":
        found.append(
            f"a run stops at the first of the {counts.too_long} samples that are too long; {counts.dropped_long[0]}"
        )
    return found


class FirstRows:
    """The first rows of a chat or pair source, and where each is.

    Args:
        source: what is read.
        count: rows, at most.
    """

    def __init__(self, source: ChatSource, count: int) -> None:
        parts = cast("list[ChatPart]", source.parts())
        found = ((part, index, row) for part in parts for index, row in enumerate(part.rows()))
        kept = list(islice(found, count))
        self.rows = [row for *_, row in kept]
        self._places = [(part, index) for part, index, _ in kept]

    def place(self, index: int) -> str:
        """Where a row is, for messages."""
        part, number = self._places[index]
        return str(part.place(number))


def chat_preview(data: ChatDataModule, look: Look) -> Callable[[str, Any], list[str]]:
    """Shows conversations."""
    from rich.text import Text

    from nbg_lightning.chat import RenderCounts, render_samples
    from nbg_lightning.chat.preview import preview, print_warnings
    from nbg_lightning.data.reading import Notes, describe, likely_mistakes, read_conversations

    tokenizer, renderer = _begin(data, look)

    def show(name: str, source: Any) -> list[str]:
        counts, notes = RenderCounts(), Notes()
        first = FirstRows(source, look.look_at)
        found = read_conversations(first.rows, notes, source.format, source.ignored_keys)
        samples = [sample for _, sample in render_samples(renderer, found, counts, name, place=first.place)]
        look.console.print(Text(printable(f"read as {describe(notes)}")))
        warnings = likely_mistakes(notes) + _refused(data, counts, "conversation")
        print_warnings(look.console, warnings)
        if samples:
            warnings += preview(samples, tokenizer.transformers, look.console, counts, look.num_samples)
            look.console.print(Text(lengths_and_packing([len(sample) for sample in samples], data)))
        return warnings

    return show


def pair_preview(data: PreferenceDataModule, look: Look) -> Callable[[str, Any], list[str]]:
    """Shows pairs, their answers side by side."""
    from rich.text import Text

    from nbg_lightning.chat import RenderCounts
    from nbg_lightning.chat.preview import find_warnings, print_legend, print_pair, print_warnings
    from nbg_lightning.chat.renderer import Rendered
    from nbg_lightning.data.pairs import PreferencePair, render_pairs
    from nbg_lightning.data.reading import Notes, add_notes, describe, likely_mistakes

    tokenizer, renderer = _begin(data, look)

    def show(name: str, source: Any) -> list[str]:
        counts, notes = RenderCounts(), Notes()

        def read(row: Any) -> PreferencePair:
            pair = PreferencePair.from_dict(row, source.format, source.ignored_keys)
            add_notes(notes, pair.notes)
            return pair

        first = FirstRows(source, look.look_at)
        pairs = list(render_pairs(renderer, first.rows, counts, data.sequence_length, first.place, read))
        look.console.print(Text(printable(f"read as {describe(notes)}")))
        print_legend(look.console)
        sides = [
            [Rendered(ids.tolist(), mask.astype(float).tolist(), []) for ids, mask in rendered.sides]
            for _, rendered in pairs
        ]
        for number, ((pair, _), (chosen, rejected)) in enumerate(zip(pairs[: look.num_samples], sides, strict=False)):
            scores = "" if pair.scores is None else f", scores {pair.scores[0]:g} and {pair.scores[1]:g}"
            title = f"pair {number}: {count_text(pair.num_prompt, 'turn')} of prompt{scores}"
            print_pair(chosen, rejected, tokenizer.transformers, look.console, title)
        look.console.print(Text(counts.summary()))
        warnings = likely_mistakes(notes) + _refused(data, counts, "pair")
        warnings += find_warnings([side for both in sides for side in both], tokenizer.transformers)
        if counts.invalid:
            warnings.append(f"{counts.invalid} of {counts.seen} pairs were invalid; first: {counts.errors[0]}")
        print_warnings(look.console, warnings)
        if pairs:
            look.console.print(Text(lengths_and_packing([r.num_positions + 1 for _, r in pairs], data)))
        return warnings

    return show


def prompt_preview(data: QuestionDataModule, look: Look) -> Callable[[str, Any], list[str]]:
    """Shows questions as the prompts that the model is given, with the header of the turn that it writes."""
    from rich.panel import Panel
    from rich.text import Text

    from nbg_lightning.chat.preview import print_warnings, styled_text
    from nbg_lightning.chat.renderer import Rendered
    from nbg_lightning.data.question_sources import QuestionCounts

    data.load_format()  # says which format it took
    form, tokenizer = data.format, data.tokenizer
    look.console.print(Text(special_tokens(tokenizer), style="dim"))

    def show(name: str, source: Any) -> list[str]:
        counts, refused = QuestionCounts(), 0
        lengths: list[int] = []
        warnings: list[str] = []
        for question in islice(source.questions(name, counts), look.look_at):
            try:
                ids = list(form.prompt(question.messages, question.data.get("tools")).ids)
            except ValueError as error:
                refused += 1
                counts.first = counts.first or f"question {counts.seen - 1}: {' '.join(str(error).split())}"
                continue
            if len(lengths) < look.num_samples:
                body = styled_text(Rendered(ids, [0.0] * len(ids), []), tokenizer.transformers)
                answer = "none" if question.answer is None else repr(question.answer[:200])
                body.append(f"\n\nanswer: {printable(answer)}; data: {', '.join(question.data) or 'none'}")
                title = f"question {len(lengths)}: {len(ids)} tokens"
                look.console.print(Panel(body, title=Text(title), title_align="left"))
            lengths.append(len(ids))
        if counts.invalid + refused:
            warnings.append(
                f"{counts.invalid + refused} of {counts.seen} rows are not valid questions; first: {counts.first}"
            )
        if data.max_prompt_tokens is not None and (long := sum(n > data.max_prompt_tokens for n in lengths)):
            warnings.append(
                f"{long} of {len(lengths)} prompts are longer than max_prompt_tokens={data.max_prompt_tokens}"
            )
        if not lengths:
            warnings.append("no question is left")
        print_warnings(look.console, warnings)
        if lengths:
            look.console.print(Text(quantiles(lengths)))
        return warnings

    return show


def text_preview(data: CurriculumDataModule, look: Look) -> Callable[[str, Any], list[str]]:
    """Shows windows with the borders of their documents: every token is trained but the first of a document's part."""
    from rich.panel import Panel
    from rich.text import Text

    from nbg_lightning.chat.preview import print_warnings

    tokenizer = data.load_tokenizer()
    look.console.print(Text(special_tokens(tokenizer), style="dim"))

    def show(name: str, source: Any) -> list[str]:
        sizes: list[int] = []

        def texts() -> Iterator[str]:
            for text in islice((text for part in source.parts() for text in part.documents()), look.look_at):
                sizes.append(len(text.encode("utf-8", "backslashreplace")))
                yield text

        lengths: list[int] = []
        for number, documents in enumerate(document_windows(texts(), tokenizer, look.window, lengths)):
            if number < look.num_samples:
                tokens = sum(map(len, documents))
                title = Text(f"window {number}: {tokens:,} tokens of {len(documents)} documents")
                look.console.print(Panel(_bordered(documents, tokenizer), title=title, title_align="left"))
        warnings = [] if lengths else ["no text is left: check the path and the text field"]
        print_warnings(look.console, warnings)
        if lengths:
            split = sum(length > look.window for length in lengths)
            said = f"{quantiles(lengths)}; {sum(sizes) / sum(lengths):.2f} bytes a token"
            said += (
                f"; {split:,} of {len(lengths):,} documents are longer than a window of {look.window:,} and are split"
            )
            look.console.print(Text(said))
        return warnings

    return show


def document_windows(
    texts: Iterable[str], tokenizer: Tokenizer, length: int, lengths: list[int] | None = None
) -> Iterator[list[list[int]]]:
    """Windows as pretraining cuts them: documents joined in their order, each window as the ids of its documents' parts.

    Args:
        texts: the documents; blank ones are left out.
        tokenizer: which begins and ends each document as training does.
        length: tokens of a window; the last one may be shorter, and is not trained.
        lengths: the length of each document is added here.
    """
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    window: list[list[int]] = []
    room = length
    for text in texts:
        if not text.strip():
            continue
        ids = [*tokenizer.begin, *tokenizer.encode(text), *end]
        if lengths is not None:
            lengths.append(len(ids))
        while ids:
            window.append(ids[:room])
            ids, room = ids[room:], room - len(window[-1])
            if not room:
                yield window
                window, room = [], length
    if window:
        yield window


def _bordered(documents: list[list[int]], tokenizer: Tokenizer) -> Text:
    """A window's text, with a line where one document ends and the next begins; the two do not see each other."""
    from rich.text import Text

    from nbg_lightning.chat.preview import TRAINED_STYLE

    shown = Text()
    left = SHOWN_CHARACTERS
    for place, ids in enumerate(documents):
        if left <= 0:
            shown.append(f"\n[{len(documents) - place} more documents]", style="bold")
            break
        if place:
            shown.append(f"\n── document border: {len(ids):,} tokens follow ──\n", style="bold")
        text = printable(tokenizer.decode(ids)[:left])
        left -= len(text)
        shown.append(text.replace("\n", "↵\n"), style=TRAINED_STYLE)
    return shown


def window_length(config: Mapping[str, Any]) -> int:
    """The window of a config's first stage, from whatever callback or model has one; `DEFAULT_WINDOW` without any."""
    trainer = config.get("trainer") or {}
    callbacks = trainer.get("callbacks") if isinstance(trainer, Mapping) else None
    for each in callbacks if isinstance(callbacks, list) else ():
        settings = each.get("init_args") if isinstance(each, Mapping) else None
        length = settings.get("sequence_length") if isinstance(settings, Mapping) else None
        if isinstance(length, int) and length > 0:
            return length
    return DEFAULT_WINDOW
