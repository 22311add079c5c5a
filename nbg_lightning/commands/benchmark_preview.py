"""The items of a benchmark suite as they will be asked, for `nbg data preview`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from nbg_lightning.printable import printable

if TYPE_CHECKING:
    from nbg_lightning.commands.preview_texts import Look
    from nbg_lightning.data.tokenizer import Tokenizer
    from nbg_lightning.datamodules.benchmark import BenchmarkDataModule
    from nbg_lightning.evaluation.benchmark import Benchmark, Item
    from nbg_lightning.evaluation.prompts import Prompts

SHOWN_CHARACTERS = 4000  # of a text that has no tokenizer


def benchmark_preview(data: BenchmarkDataModule, look: Look) -> Callable[[str, Any], list[str]]:
    """Shows the prompts of each benchmark with the gold answer.

    A base model's are texts, a chat model's end with the header of the turn that it writes; with an engine that takes text, the
    text that it is given.

    Args:
        data: the suite; its benchmarks are read whole.
        look: how much is shown, and the weights whose tokenizer is used if the suite names none.

    Raises:
        ValueError: an engine that takes ids, and no tokenizer to make them.
    """
    from rich.panel import Panel
    from rich.text import Text

    from nbg_lightning.chat.preview import print_warnings
    from nbg_lightning.commands.preview_texts import quantiles
    from nbg_lightning.evaluation.prompts import Prompts

    tokenizer = _tokenizer(data, look.weights)
    prompts = Prompts(tokenizer, data.suite.format)
    look.console.print(Text(printable(f"format: {prompts.format}")))

    def show(name: str, benchmark: Benchmark) -> list[str]:
        loaded = benchmark.load()
        lengths: list[int] = []
        refused: list[str] = []
        for item in islice(loaded.items, look.look_at):
            try:
                ids, text = _prompt(prompts, benchmark, item)
            except ValueError as error:
                refused.append(f"{item.id}: {' '.join(str(error).split())}")
                continue
            if len(lengths) < look.num_samples:
                gold = benchmark_gold(item)
                body = _body(tokenizer, ids, text)
                body.append(f"\n\ngold: {printable(gold)[:SHOWN_CHARACTERS]}")
                title = f"item {item.id}: {f'{len(ids)} tokens' if ids else f'{len(text):,} characters'}"
                look.console.print(Panel(body, title=Text(printable(title)), title_align="left"))
            lengths.append(len(ids))
        warnings = (
            [f"{len(refused)} of {len(loaded.items)} items have no prompt; first: {refused[0]}"] if refused else []
        )
        print_warnings(look.console, warnings)
        said = f"{len(loaded.items):,} items from {loaded.origin}, {len(loaded.shots)} worked examples"
        look.console.print(Text(printable(said + (f"; {quantiles(lengths)}" if any(lengths) else ""))))
        return warnings

    return show


def benchmark_gold(item: Item) -> str:
    """The right answer of an item, in words."""
    if item.choices and isinstance(item.answer, int):
        return str(item.choices[item.answer])
    return "none" if item.answer is None else str(item.answer)


def _tokenizer(data: BenchmarkDataModule, weights: str | None) -> Tokenizer | None:
    """As a test of these weights has it: with the chat format that they record."""
    from nbg_lightning.data.tokenizer import checkpoint_template, load_tokenizer
    from nbg_lightning.data.tokenizer_folder import tokenizer_name

    if data.interface != "ids":
        return None
    tokenizer = load_tokenizer(tokenizer_name(data.given_tokenizer, weights))
    if weights is not None:
        tokenizer.chat_template = checkpoint_template(weights) or tokenizer.chat_template
    return tokenizer


def _prompt(prompts: Prompts, benchmark: Benchmark, item: Item) -> tuple[tuple[int, ...], str]:
    """Ids and text of an item's prompt; ids are empty for an engine that takes text.

    Raises:
        ValueError: the item is malformed, or the format cannot render it.
    """
    if item.error is not None:
        raise ValueError(item.error)
    shots = benchmark.shots_for(item, benchmark.load().shots)
    if benchmark.kind == "perplexity":
        return (), str(item.answer)
    rendered = (
        prompts.choices(benchmark, item, shots)[0]
        if benchmark.kind == "choices"
        else prompts.generation(benchmark, item, shots)
    )
    return tuple(rendered.ids), rendered.text


def _body(tokenizer: Tokenizer | None, ids: tuple[int, ...], text: str) -> Any:
    from rich.text import Text

    from nbg_lightning.chat.preview import styled_text
    from nbg_lightning.chat.renderer import Rendered

    if tokenizer is None or not ids:
        return Text(printable(text)[:SHOWN_CHARACTERS])
    return styled_text(Rendered(list(ids), [0.0] * len(ids), []), tokenizer.transformers)
