"""A dialogue with several questions, calls and reasoning, in three chat formats, for tests of token ids."""

from nbg_lightning.engines.chat import ChatFormat
from nbg_lightning.environments.environment import Environment, EpisodeLimits, Opening, Reply
from nbg_lightning.environments.tools import Tool
from nbg_lightning.testing.prices import price, times

# Tools as JSON, calls in tags, reasoning only after the last user turn: as Qwen3's template has it.
HERMES = """{%- if tools %}<|im_start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}<|im_start|>assistant
{% if m.reasoning_content and loop.index0 > ns.last %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}{% for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endif %}{%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# A call is the whole turn, results have their own role, and nothing is rewritten, as in Llama 3's template.
LLAMA = """{% if tools %}<|im_start|>system

{{ tools | tojson }}<|im_end|>{% endif %}{% for m in messages %}<|im_start|>{{ 'ipython' if m.role == 'tool' else m.role }}

{% if m.tool_calls %}{%- set f = m.tool_calls[0].function %}{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}
{%- else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant

{% endif %}"""
FORMATS = {"nanbeige": None, "hermes": HERMES, "llama": LLAMA}


class Shop(Environment):
    """Answers each call by its number, and each answer by another question, three of them."""

    limits = EpisodeLimits(isolated=False)

    def reset(self, question):
        self.asked = 0
        return Opening(question.messages, (Tool(price).schema, Tool(times).schema))

    def step(self, turn):
        if turn.calls:
            return Reply(({"role": "tool", "name": turn.calls[0].name, "content": f"result {self.asked}"},))
        self.asked += 1
        if self.asked == 3:
            return Reply(done=True, score=0.5)
        return Reply(({"role": "user", "content": f"and number {self.asked}?"},), score=0.25)


def script(style):
    """A call, then an answer, to each question of the shop; with reasoning in which spaces are as no template writes them."""

    def say(text):
        last = text.rpartition("<|im_start|>assistant")[0]
        called = "result" in last.rpartition("number" if "number" in last else "What")[2]
        body = "forty  two " if called else '{"name": "price", "parameters":  {"item": "pen"}}'
        if not called and style != "llama":
            body = '<tool_call>\n{"name":   "price", "arguments": {"item": "pen"}}</tool_call>'
        return body if style == "llama" else f"<think>\nso  it  is\n</think>\n{body}"

    return say


def chat_format(name, tokenizer, folder):
    """The chat format of a name in `FORMATS`."""
    if FORMATS[name] is None:
        return ChatFormat(tokenizer, name)
    path = folder / f"{name}.jinja"
    path.write_text(FORMATS[name])
    return ChatFormat(tokenizer, str(path))
