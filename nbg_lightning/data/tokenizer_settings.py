"""Files beside a tokenizer.json: settings, the class that they name, and the chat template."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
NAMED_TEMPLATES = "additional_chat_templates"
_GENERAL = ("PreTrainedTokenizerFast", "TokenizersBackend")  # names of the same class in transformers 4 and 5
# A folder with a tokenizer has one of these: transformers' slow tokenizers have no tokenizer.json.
_MARKS = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "config.json")


def transformers_class(folder: Path | None) -> Any:
    """The class that loads a tokenizer, bypassing AutoTokenizer if the folder names the general class.

    AutoTokenizer would choose the same class, but imports generation code and scikit-learn: three seconds of processor time and
    300 MB, which a run on chats would pay before its first step.
    """
    settings = {} if folder is None else tokenizer_settings(folder)
    if settings.get("tokenizer_class") in _GENERAL and "auto_map" not in settings:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def check_folder(folder: Path, name: str) -> None:
    """Raise with a suggestion for a folder without a tokenizer: for a run, one of its checkpoints."""
    if any(next(folder.glob(mark), None) for mark in _MARKS):
        return
    from nbg_lightning.core.checkpoint_folder import checkpoints_below

    if found := checkpoints_below(folder):
        raise ValueError(
            f"tokenizer {name!r} is invalid: it is the folder of a run; give a checkpoint of it: {name}/{found[-1]}"
        )
    raise ValueError(
        f"tokenizer {name!r} is invalid: the folder has no tokenizer.json; give the folder of a tokenizer, a checkpoint, or a "
        "name on the hub"
    )


def write_template(folder: Path, text: str) -> None:
    """Make this the only chat template of a tokenizer's folder, unless it already is.

    Both places are written, since versions of transformers differ in which one they read.
    """
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    settings = json.loads(config.read_text("utf-8")) if config.is_file() else {}
    written = file.read_bytes().decode("utf-8") if file.is_file() else settings.get("chat_template")
    if written == text:
        return
    shutil.rmtree(folder / NAMED_TEMPLATES, ignore_errors=True)
    file.write_bytes(text.encode("utf-8"))
    settings["chat_template"] = text
    config.write_text(json.dumps(settings, ensure_ascii=False, indent=1), "utf-8")


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """The settings in the files beside a tokenizer.json.

    Raises:
        ValueError: a file is not a JSON object.
    """
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):  # the later one takes precedence
        if (folder / name).is_file():
            try:
                found = json.loads((folder / name).read_text("utf-8"))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{folder / name}: malformed JSON ({error}); write the tokenizer again") from None
            if not isinstance(found, dict):
                raise ValueError(f"{folder / name} is invalid: it is no JSON object; write the tokenizer again")
            settings |= found
    return settings


def special_names(folder: Path) -> tuple[dict[str, str | None], bool | None]:
    """The bos, eos and pad tokens named by the folder's configuration, and whether texts begin with bos, if it says so."""
    settings = tokenizer_settings(folder)
    values = {role: settings.get(role) for role in ("bos_token", "eos_token", "pad_token")}
    names = {role: value.get("content") if isinstance(value, dict) else value for role, value in values.items()}
    for role, name in names.items():
        if not isinstance(name, str if isinstance(values[role], dict) else str | None):
            raise ValueError(
                f"{role} is invalid: {str(values[role])[:60]}; give {folder}/tokenizer_config.json a text, or an object with "
                "its content"
            )
    # The general class, which most folders name, relies on the post-processor only.
    general = settings.get("tokenizer_class") in (None, *_GENERAL)
    return names, None if general else settings.get("add_bos_token")
