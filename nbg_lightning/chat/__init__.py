"""Conversations, chat formats and loss masks; free of torch. `preview` is imported from its own module."""

from typing import TYPE_CHECKING

from nbg_lightning.lazy import lazy_names

if TYPE_CHECKING:
    from nbg_lightning.chat.conversation import Conversation as Conversation
    from nbg_lightning.chat.conversation import ConversationError as ConversationError
    from nbg_lightning.chat.conversation import Message as Message
    from nbg_lightning.chat.conversation import ToolCall as ToolCall
    from nbg_lightning.chat.jinja import JinjaRenderer as JinjaRenderer
    from nbg_lightning.chat.nanbeige import NanbeigeRenderer as NanbeigeRenderer
    from nbg_lightning.chat.renderer import ChatOptions as ChatOptions
    from nbg_lightning.chat.renderer import ChatTemplateError as ChatTemplateError
    from nbg_lightning.chat.renderer import RenderCounts as RenderCounts
    from nbg_lightning.chat.renderer import Rendered as Rendered
    from nbg_lightning.chat.renderer import Renderer as Renderer
    from nbg_lightning.chat.renderer import render_samples as render_samples
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "conversation": ["Conversation", "ConversationError", "Message", "ToolCall"],
            "jinja": ["JinjaRenderer"],
            "nanbeige": ["NanbeigeRenderer"],
            "renderer": ["ChatOptions", "ChatTemplateError", "RenderCounts", "Rendered", "Renderer", "render_samples"],
        },
    )
