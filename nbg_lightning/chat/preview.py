"""Inspection of training samples before a run: what is trained on, what is not, and what looks wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from nbg_lightning.chat.renderer import RenderCounts, Rendered
from nbg_lightning.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text
    from transformers import PreTrainedTokenizerFast

# Shares beyond which a mask is suspicious: almost all prompt, or almost all answer.
LOW_TRAINED_SHARE, HIGH_TRAINED_SHARE = 0.01, 0.98
MUCH_SHORTENED = 0.5  # share of samples that were truncated, or dropped for their length
STOP_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end|>", "<end_of_turn>")

TRAINED_STYLE, WEIGHTED_STYLE, CONTEXT_STYLE = "black on green", "black on yellow", "dim"


def find_warnings(
    samples: Sequence[Rendered],
    tokenizer: PreTrainedTokenizerFast,
    counts: RenderCounts | None = None,
    stop_ids: Collection[int] | None = None,
) -> list[str]:
    """Warnings about rendered samples, one line each, with the number of samples.

    Args:
        samples: rendered training samples.
        tokenizer: the tokenizer they were rendered with.
        counts: outcomes for the whole dataset, if known.
        stop_ids: tokens that end an assistant turn; None means eos and the well-known end-of-turn tokens.
    """
    if stop_ids is None:
        added = tokenizer.get_added_vocab()
        stop_ids = {added[text] for text in STOP_TOKENS if text in added}
        if tokenizer.eos_token_id is not None:
            stop_ids.add(tokenizer.eos_token_id)
    bos, unknown = tokenizer.bos_token_id, tokenizer.unk_token_id
    found: dict[str, int] = {}
    for sample in samples:
        trained = sample.trained_spans()
        share = sample.num_trained / max(1, len(sample))
        checks = {
            "no token is trained": not trained,
            "a trained span does not end with a stop token, so the model would not learn to stop": any(
                sample.ids[end - 1] not in stop_ids for _, end in trained
            ),
            f"less than {LOW_TRAINED_SHARE:.0%} of the tokens are trained": bool(trained) and share < LOW_TRAINED_SHARE,
            f"more than {HIGH_TRAINED_SHARE:.0%} of the tokens are trained; is the prompt masked?": share
            > HIGH_TRAINED_SHARE,
            "begins with two bos tokens": bos is not None and sample.ids[:2] == [bos, bos],
            "has unknown tokens": unknown is not None and unknown in sample.ids,
            "a trained turn was left without its reasoning (it stands before the last user query); "
            'train_on="last_query" trains only turns that keep theirs': sample.num_reasoning_dropped > 0,
        }
        for text, wrong in checks.items():
            if wrong:
                found[text] = found.get(text, 0) + 1
    warnings = [f"{number} of {len(samples)} samples: {text}" for text, number in found.items()]
    if counts is None:
        num_seen, num_short = len(samples), sum(sample.num_rounds_dropped > 0 for sample in samples)
    else:
        num_seen, num_short = counts.seen, counts.truncated + counts.too_long
    if num_short > MUCH_SHORTENED * num_seen:
        warnings.append(f"{num_short} of {num_seen} samples were truncated or dropped; raise max_length")
    if counts is not None and counts.invalid:
        warnings.append(f"{counts.invalid} of {counts.seen} samples were invalid; first: {counts.errors[0]}")
    return warnings


def styled_text(sample: Rendered, tokenizer: PreTrainedTokenizerFast) -> Text:
    """The sample as coloured text: trained tokens are highlighted, control tokens are bold, newlines are visible.

    Terminal control characters are escaped (see `printable`).
    """
    from rich.text import Text

    text = Text()
    for piece, weight, special in decoded_runs(sample, tokenizer):
        style = CONTEXT_STYLE if weight == 0 else TRAINED_STYLE if weight == 1 else WEIGHTED_STYLE
        text.append(printable(piece).replace("\n", "↵\n"), style=f"bold {style}" if special else style)
    return text


def decoded_runs(sample: Rendered, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[str, float, bool]]:
    """Text, loss weight and control-token flag of each run of tokens that share both.

    Runs are decoded as a whole, since a character may consist of several tokens.
    """
    special = {index for index, token in tokenizer.added_tokens_decoder.items()}
    keys = [
        (weight, index if token in special else -1)
        for index, (token, weight) in enumerate(zip(sample.ids, sample.loss_weights, strict=True))
    ]
    position = 0
    for (weight, special_index), run in groupby(keys):
        length = len(list(run))
        piece = str(tokenizer.decode(sample.ids[position : position + length], skip_special_tokens=False))
        position += length
        yield piece, weight, special_index >= 0


def preview(
    rendered: Rendered | Sequence[Rendered],
    tokenizer: PreTrainedTokenizerFast,
    console: Console | None = None,
    counts: RenderCounts | None = None,
    num_samples: int = 3,
) -> list[str]:
    """Print the first samples with their masks, and warnings about all samples.

    Args:
        rendered: one or more samples; warnings cover all, and the first `num_samples` are printed.
        tokenizer: the tokenizer they were rendered with.
        console: the console; None creates one on standard output.
        counts: outcomes for the whole dataset, if known.
        num_samples: number of samples to print.

    Returns:
        The warnings, as from `find_warnings`.
    """
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    samples = [rendered] if isinstance(rendered, Rendered) else list(rendered)
    console = console or Console()
    print_legend(console)
    for number, sample in enumerate(samples[:num_samples]):
        weights = sorted({weight for weight in sample.loss_weights if weight})
        title = (
            f"sample {number}: {len(sample)} tokens, {sample.num_trained} trained "
            f"({sample.num_trained / max(1, len(sample)):.0%}) in {len(sample.trained_spans())} spans, "
            f"weights {', '.join(f'{weight:g}' for weight in weights) or 'none'}"
        )
        if sample.num_rounds_dropped:
            title += f", {sample.num_rounds_dropped} rounds cut off"
        console.print(Panel(styled_text(sample, tokenizer), title=Text(title), title_align="left"))
    if counts is not None:
        console.print(Text(counts.summary()))
    return print_warnings(console, find_warnings(samples, tokenizer, counts))


def print_warnings(console: Console, warnings: list[str]) -> list[str]:
    """Print the warnings, and return them."""
    from rich.text import Text

    for warning in warnings:
        console.print(Text(printable(f"warning: {warning}"), style="bold red"))
    return warnings


def print_legend(console: Console) -> None:
    """Print what the colours mean."""
    from rich.text import Text

    console.print(
        Text.assemble(
            ("trained", TRAINED_STYLE),
            " ",
            ("trained, weight ≠ 1", WEIGHTED_STYLE),
            " ",
            ("context", CONTEXT_STYLE),
        )
    )


def print_pair(
    chosen: Rendered, rejected: Rendered, tokenizer: PreTrainedTokenizerFast, console: Console, title: str
) -> None:
    """Print the common beginning of both sequences of a pair, and below it the two answers side by side.

    Args:
        chosen: the better one.
        rejected: the worse one.
        tokenizer: the tokenizer they were rendered with.
        console: the console.
        title: title of the pair, in addition to its token counts.
    """
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    common = chosen.common_context(rejected)
    answers = Table(expand=True)
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        answers.add_column(f"{name}: {len(side)} tokens, {side.num_trained} trained", ratio=1, overflow="fold")
    answers.add_row(*(styled_text(_from(side, common), tokenizer) for side in (chosen, rejected)))
    prompt = styled_text(Rendered(chosen.ids[:common], [0.0] * common, []), tokenizer)
    console.print(Panel(Group(prompt, answers), title=Text(printable(title)), title_align="left"))


def _from(sample: Rendered, begin: int) -> Rendered:
    return Rendered(sample.ids[begin:], sample.loss_weights[begin:], [])
