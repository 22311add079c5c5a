"""Options of `nbg chat` and `nbg generate`: which models, and how answers are drawn."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nbg_lightning.json_lines import LONGEST_LINE_BYTES

if TYPE_CHECKING:
    from nbg_lightning.commands.speaker import SpeakerOptions
    from nbg_lightning.engines.protocol import Sampling

MODEL_HELP = (
    "a checkpoint, a run's folder (its newest checkpoint), a Hugging Face folder or hub name, or a server's URL"
)
_TEMPLATE_HELP = "chat format: auto, text (no chat), nanbeige, tokenizer, or a file (default auto)"
_SERVER_HELP = "an OpenAI-compatible server, such as http://127.0.0.1:8000/v1"


def add_options(parser: argparse.ArgumentParser, temperature: float, max_new_tokens: int) -> None:
    """Add them, with defaults for what differs between the commands."""
    models = parser.add_argument_group("models")
    models.add_argument("--server", action="append", default=[], metavar="URL", help=_SERVER_HELP)
    models.add_argument("--served-model", metavar="NAME", help="the model's name on the server (default: its first)")
    models.add_argument(
        "--api-key", metavar="KEY", help="API key of the server; env:NAME reads it from the environment"
    )
    models.add_argument("--template", default="auto", help=_TEMPLATE_HELP)
    models.add_argument(
        "--tokenizer", metavar="NAME", help="folder or hub name (default: the one stored with the weights)"
    )
    models.add_argument("--ema", action="store_true", help="use the averaged weights of a checkpoint")
    models.add_argument("--device", help="such as cpu or cuda:1 (default: CUDA if available)")
    models.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="precision of the weights in memory"
    )
    drawing = parser.add_argument_group("sampling")
    drawing.add_argument("-n", type=int, default=1, metavar="N", help="samples of each answer (default 1)")
    drawing.add_argument("--temperature", type=float, default=temperature, help=f"0 is greedy (default {temperature})")
    drawing.add_argument("--top-p", type=float, default=1.0, help="nucleus sampling (default 1: off)")
    drawing.add_argument("--top-k", type=int, default=0, help="sample from the K most likely tokens (default 0: off)")
    drawing.add_argument("--max-new-tokens", type=int, default=max_new_tokens, help=f"(default {max_new_tokens})")
    drawing.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="stop at this text; may be repeated"
    )
    drawing.add_argument("--seed", type=int, default=0, help="the same seed gives the same answers (default 0)")
    drawing.add_argument("--system", metavar="TEXT", help="system message")
    drawing.add_argument("--tools", metavar="FILE", help="JSON file with a list of function schemas")


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    """How answers are drawn.

    Raises:
        ValueError: a number that means nothing.
    """
    from nbg_lightning.engines.protocol import Sampling

    return Sampling(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        top_k=arguments.top_k,
        n=arguments.n,
        stop_strings=tuple(arguments.stop),
        seed=arguments.seed,
    )


def speaker_options(arguments: argparse.Namespace) -> SpeakerOptions:
    """How models are opened."""
    from nbg_lightning.commands.speaker import SpeakerOptions

    names = ("template", "tokenizer", "ema", "device", "dtype", "served_model", "api_key")
    return SpeakerOptions(**{name: getattr(arguments, name) for name in names})


def read_tools(path: str | None) -> list[dict[str, Any]] | None:
    """The functions of a JSON file: a list of schemas, or one.

    Raises:
        FileNotFoundError, ValueError: no such file, or something else in it.
    """
    import json
    from pathlib import Path

    from nbg_lightning.chat.tool_calls import parse_tools
    from nbg_lightning.error_line import first_line

    if path is None:
        return None
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"--tools is invalid: {path}; give a JSON file with a list of function schemas")
    if file.stat().st_size > LONGEST_LINE_BYTES:
        raise ValueError(f"--tools is invalid: {path}; give a file of at most {LONGEST_LINE_BYTES:,} bytes")
    try:
        found = json.loads(file.read_text("utf-8"))
        tools = parse_tools(found if isinstance(found, list) else [found])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--tools is invalid: {path}; {first_line(error)}") from None
    if not tools:
        raise ValueError(f"--tools is invalid: {path}; the list is empty: write a tool, or leave --tools out")
    return tools
