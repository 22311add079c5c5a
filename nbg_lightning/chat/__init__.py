"""Conversations, chat formats and loss masks; torch-free. `preview` has a module of its own name."""

from nbg_lightning.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "conversation": ["Conversation", "ConversationError", "Message", "ToolCall"],
        "jinja": ["JinjaRenderer"],
        "nanbeige": ["NanbeigeRenderer"],
        "renderer": ["ChatOptions", "ChatTemplateError", "RenderCounts", "Rendered", "Renderer", "render_samples"],
    },
)
