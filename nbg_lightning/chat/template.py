"""A chat format as data, stored in checkpoints and exports, and the choice of a stage's format."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbg_lightning.chat.nanbeige_template import nanbeige_template, template_settings
from nbg_lightning.chat.renderer import ChatOptions, Renderer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

AUTO, NANBEIGE, TOKENIZER = "auto", "nanbeige", "tokenizer"
LARGEST = 1_000_000  # characters of a template; those of large models have some 30,000


@dataclass(frozen=True)
class ChatTemplate:
    """A chat format, fully defined by its Jinja text and the tokenizer.

    Attributes:
        name: ``nanbeige``, ``tokenizer``, or the file that it was read from.
        text: the template, as rendered by `apply_chat_template` of transformers.
        where: the checkpoint or tokenizer it was found with, for messages.

    Raises:
        ValueError: the text is empty or too long.
    """

    name: str
    text: str
    where: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.text.strip() or len(self.text) > LARGEST:
            raise ValueError(
                f"the chat template {self.name} is invalid: {len(self.text):,} characters; give 1 to {LARGEST:,}"
            )

    @classmethod
    def nanbeige(
        cls, default_system: str | None = None, add_bos: bool = False, open_thinking: bool = False
    ) -> ChatTemplate:
        """The paper's format with these settings of `NanbeigeRenderer`."""
        return cls(NANBEIGE, nanbeige_template(default_system, add_bos, open_thinking))

    @classmethod
    def own(cls, tokenizer: PreTrainedTokenizerFast, where: str = "") -> ChatTemplate | None:
        """The tokenizer's own template (the default one of several); None if it has none."""
        found = tokenizer.chat_template
        text = found.get("default") if isinstance(found, dict) else found
        return cls(TOKENIZER, text, where).recognized() if text else None

    @classmethod
    def read(cls, file: str | Path) -> ChatTemplate:
        """Read a template from a file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not UTF-8 text, or empty.
        """
        path = Path(file).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"template {file} does not exist; give {AUTO}, {NANBEIGE}, {TOKENIZER} or a file")
        try:
            return cls(path.name, path.read_bytes().decode("utf-8")).recognized()
        except UnicodeDecodeError as error:
            raise ValueError(f"template {file} is not UTF-8 text ({error}); save it as UTF-8") from None

    @classmethod
    def from_dict(cls, saved: dict[str, str], where: str = "") -> ChatTemplate:
        """Restore from `to_dict`."""
        return cls(saved["name"], saved["text"], where).recognized()

    def to_dict(self) -> dict[str, str]:
        """Plain values, for a checkpoint."""
        return {"name": self.name, "text": self.text}

    def recognized(self) -> ChatTemplate:
        """The same template, named ``nanbeige`` if it is the paper's format."""
        settings = template_settings(self.text)
        return self if settings is None else replace(ChatTemplate.nanbeige(**settings), where=self.where)

    @property
    def settings(self) -> dict[str, Any] | None:
        """The settings of `NanbeigeRenderer` for it; None for other templates."""
        return template_settings(self.text)

    @property
    def described(self) -> str:
        """The name with the settings, to distinguish formats with the same name."""
        kept = {name: value for name, value in (self.settings or {}).items() if value}
        listed = ", ".join(f"{name}: {value!r}" for name, value in kept.items())
        return f"{self.name} ({listed})" if kept else self.name

    @property
    def form(self) -> dict[str, Any]:
        """The part of the keys of prepared data: everything that affects ids."""
        if self.settings is None:
            return {"template": TOKENIZER, "text": self.text}
        form = {"template": NANBEIGE, **self.settings}
        del form["open_thinking"]  # affects generation prompts only
        return form

    @property
    def identity(self) -> str:
        """The identification stored with results: the name, with a digest if the name alone does not determine the text."""
        if self.name == TOKENIZER or self == ChatTemplate.nanbeige():
            return self.name
        return f"{self.name} {hashlib.blake2b(self.text.encode(), digest_size=8).hexdigest()}"

    def renderer(self, tokenizer: PreTrainedTokenizerFast, options: ChatOptions | None = None) -> Renderer:
        """Create the renderer of this format.

        Raises:
            ValueError: the tokenizer lacks the format's tokens, or the template does not support training.
        """
        if self.settings is not None:
            from nbg_lightning.chat.nanbeige import NanbeigeRenderer

            return NanbeigeRenderer(tokenizer, options, **self.settings)
        from nbg_lightning.chat.jinja import JinjaRenderer

        return JinjaRenderer(tokenizer, options, self.text)


@dataclass(frozen=True)
class ChosenTemplate:
    """The chosen format of a stage.

    Attributes:
        template: the format.
        reason: why it was chosen, for a log.
        warning: set if it differs from the format that the model was trained with.
    """

    template: ChatTemplate
    reason: str
    warning: str | None = None


def choose_template(
    given: str,
    tokenizer: PreTrainedTokenizerFast,
    recorded: ChatTemplate | None = None,
    where: str = "the model",
    default_system: str | None = None,
    add_bos: bool = False,
) -> ChosenTemplate:
    """Choose the format of a stage: the given one, else the recorded one, else the tokenizer's own, else the paper's.

    Args:
        given: ``auto``, ``nanbeige``, ``tokenizer``, or a file.
        tokenizer: the tokenizer whose own template may be used.
        recorded: the format that the weights were trained with, if known.
        where: the tokenizer, for messages.
        default_system: setting of the paper's format, if given.
        add_bos: setting of the paper's format.

    Raises:
        ValueError: there is no such format, or it does not have these settings.
        FileNotFoundError: there is no such file.
    """
    own = ChatTemplate.own(tokenizer, where)
    expected = recorded or own
    settings: dict[str, Any] = {"default_system": default_system, "add_bos": add_bos}
    changed = {name: value for name, value in settings.items() if value}
    if given == AUTO:
        chosen = expected or ChatTemplate.nanbeige()
        reason = (
            f"the chat format of {recorded.where or where}"
            if recorded
            else f"the tokenizer's own template; {where} records no format"
            if own
            else f"{where} records no format, and its tokenizer has no template"
        )
        if changed and chosen.settings is not None:
            chosen = ChatTemplate.nanbeige(**{**chosen.settings, **changed})
    else:
        chosen, reason = _given(given, own, where, settings), "as given"
    if changed and chosen.settings is None:
        raise ValueError(
            f"{' and '.join(changed)} have no effect with template: {chosen.name}; remove them, or set template to "
            f"{NANBEIGE}"
        )
    warning = None
    if expected is not None and expected.text.strip() != chosen.text.strip():
        warning = (
            f"the chat format of {expected.where or where} is {expected.described}, and this run uses {chosen.described}: "
            f"set template to {AUTO} to keep the model's"
        )
    return ChosenTemplate(chosen, reason, warning)


def _given(given: str, own: ChatTemplate | None, where: str, settings: dict[str, Any]) -> ChatTemplate:
    if given == NANBEIGE:
        return ChatTemplate.nanbeige(**settings)
    if given != TOKENIZER:
        return ChatTemplate.read(given)
    if own is None:
        raise ValueError(f"{where} has no chat template; set template to {NANBEIGE}, or to a file with one")
    return own
