"""The chat format of Nanbeige4-3B as a Jinja template: its definition, stored in checkpoints and exports.

`NanbeigeRenderer` implements the same format in Python, for speed and for the loss mask; tests compare the two.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

# The wording of the Hermes function-calling format (Nous Research), which ChatML models with tools share.
TOOLS_BEFORE = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
)
TOOLS_AFTER = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>"
)

_SETTINGS = re.compile(r"\{%- set format = (\{.*\}) %\}")
# Digest of the template in older tokenizers of `train_bpe`; their models are trained in this format.
_EARLIER = "cb205169a9f1e25ef52de3c6770f0930"

_TEMPLATE = r"""{%- set format = @SETTINGS@ %}
{#- OpenAI's first name of tool results, and its last of system turns. -#}
{%- macro role_of(message) -%}
    {{- {'function': 'tool', 'developer': 'system'}.get(message.role, message.role) -}}
{%- endmacro -%}
{#- Content: a string, null, or a list of parts, of which some may be reasoning. -#}
{%- macro text_of(content) -%}
    {%- if content is string -%}
        {{- content -}}
    {%- else -%}
        {%- for part in content or [] if part is string or part.type not in ['reasoning', 'thinking'] -%}
            {{- part if part is string else part.text -}}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- macro thoughts_of(content) -%}
    {%- for part in content if part is mapping and part.type in ['reasoning', 'thinking'] -%}
        {{- ('' if loop.first else '\n\n') + text_of(part.thinking or part.text or part.reasoning or part.content) -}}
    {%- endfor -%}
{%- endmacro -%}
{#- Arguments that are JSON text, written as an object would be: one blank after "," and ":", characters unescaped. -#}
{%- macro json_text(text) -%}
    {%- set at = namespace(quoted=false, skip=0) -%}
    {%- for character in text -%}
        {%- if at.skip -%}
            {%- set at.skip = at.skip - 1 -%}
        {%- elif at.quoted and character == '\\' -%}
            {%- set escaped = text[loop.index] -%}
            {%- set at.skip = 1 -%}
            {%- if escaped == 'u' -%}
                {%- set code = namespace(value=text[loop.index + 1:loop.index + 5] | int(base=16)) -%}
                {%- set at.skip = 5 -%}
                {%- if 55296 <= code.value < 56320 and text[loop.index + 5:loop.index + 7] == '\\u' -%}
                    {%- set low = text[loop.index + 7:loop.index + 11] | int(base=16) -%}
                    {%- set code.value = 65536 + (code.value - 55296) * 1024 + low - 56320 -%}
                    {%- set at.skip = 11 -%}
                {%- endif -%}
                {{- ('%c' | format(code.value) | tojson)[1:-1] -}}
            {%- else -%}
                {{- '/' if escaped == '/' else '\\' + escaped -}}
            {%- endif -%}
        {%- elif character == '"' -%}
            {{- character -}}
            {%- set at.quoted = not at.quoted -%}
        {%- elif at.quoted -%}
            {{- character -}}
        {%- elif character in ',:' -%}
            {{- character + ' ' -}}
        {%- elif character not in ' \t\r\n' -%}
            {{- character -}}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro -%}
{#- One call as a JSON line in tags. -#}
{%- macro call_text(call) -%}
    {%- set function = call.function if call.function is mapping else call -%}
    {{- '<tool_call>\n{"name": ' + function.name | tojson + ', "arguments": ' -}}
    {%- set given = function.arguments or function.parameters or function.input or function.args -%}
    {%- if given is string -%}
        {{- json_text(given) or '{}' -}}
    {%- else -%}
        {{- given | tojson if given else '{}' -}}
    {%- endif -%}
    {{- '}\n</tool_call>' -}}
{%- endmacro -%}
{#- Results in the order of the calls that they answer: by id, else by names that tell them apart, else as given. -#}
{%- macro results_text(results, calls) -%}
    {%- set at = namespace(keys=[], given=[], rest=[]) -%}
    {%- for call in calls -%}{%- set at.keys = at.keys + [call.id | string if call.id else none] -%}{%- endfor -%}
    {%- for result in results -%}
        {%- set at.given = at.given + [result.tool_call_id | string if result.tool_call_id else none] -%}
    {%- endfor -%}
    {%- if not (at.keys | select | list and at.given | select | list) -%}
        {%- set at.keys, at.given = [], [] -%}
        {%- for call in calls -%}{%- set at.keys = at.keys + [(call.function or call).name] -%}{%- endfor -%}
        {%- for result in results -%}{%- set at.given = at.given + [result.name or none] -%}{%- endfor -%}
        {%- set unknown = at.given | reject('in', at.keys) | list -%}
        {%- set distinct = at.given | unique(true) | list | length == at.given | length -%}
        {%- if unknown or not distinct or at.keys | unique(true) | list | length < at.keys | length -%}
            {%- set at.keys = [] -%}
        {%- endif -%}
    {%- endif -%}
    {%- for result in results -%}
        {%- if at.given[loop.index0] is none or at.given[loop.index0] not in at.keys -%}
            {%- set at.rest = at.rest + [result] -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for key in at.keys -%}
        {%- if key is not none and key in at.given -%}
            {{- response_text(results[at.given.index(key)]) -}}
        {%- elif at.rest -%}
            {{- response_text(at.rest[0]) -}}
            {%- set at.rest = at.rest[1:] -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for result in at.rest -%}{{- response_text(result) -}}{%- endfor -%}
{%- endmacro -%}
{%- macro response_text(result) -%}
    {{- '\n<tool_response>\n' + text_of(result.content) + '\n</tool_response>' -}}
{%- endmacro -%}
{#- The system turn: the given text or the default one, and the tools. -#}
{%- set system = namespace(text=format.default_system) -%}
{%- if role_of(messages[0]) == 'system' -%}{%- set system.text = text_of(messages[0].content) -%}{%- endif -%}
{%- if tools -%}
    {%- set system.text = system.text + ('\n\n' if system.text else '') + @TOOLS_BEFORE@ -%}
    {%- for tool in tools -%}
        {%- set tool = tool if 'function' in tool else {'type': 'function', 'function': tool} -%}
        {%- set system.text = system.text + '\n' + tool | tojson -%}
    {%- endfor -%}
    {%- set system.text = system.text + @TOOLS_AFTER@ -%}
{%- endif -%}
{{- bos_token if format.add_bos else '' -}}
{{- '<|im_start|>system\n' + system.text + '<|im_end|>\n' if system.text else '' -}}
{#- Reasoning is kept after the last user turn that asks something: tool results may be written as user turns. -#}
{%- set at = namespace(last_query=-1, calls=[], results=[]) -%}
{%- for message in messages -%}
    {%- set text = text_of(message.content).strip() -%}
    {%- if message.role == 'user' and not (text.startswith('<tool_response>') and text.endswith('</tool_response>')) -%}
        {%- set at.last_query = loop.index0 -%}
    {%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
    {%- set role = role_of(message) -%}
    {%- if role == 'assistant' -%}
        {%- set turn = namespace(content=text_of(message.content)) -%}
        {%- set turn.reasoning = message.reasoning_content or message.reasoning or message.thinking or '' -%}
        {%- if not turn.reasoning and message.content is not string -%}
            {%- set turn.reasoning = thoughts_of(message.content or []) -%}
        {%- endif -%}
        {%- if not turn.reasoning and '</think>' in turn.content -%}
            {%- set parts = turn.content.split('</think>', 1) -%}
            {%- set opened = parts[0].lstrip().startswith('<think>') -%}
            {%- if opened or '<think>' not in parts[0] -%}
                {%- set turn.reasoning = parts[0].lstrip()[7:] if opened else parts[0] -%}
                {%- set turn.content = parts[1].lstrip('\n') -%}
            {%- endif -%}
        {%- endif -%}
        {%- set turn.reasoning = turn.reasoning.strip('\n') if loop.index0 > at.last_query else '' -%}
        {{- '<|im_start|>assistant\n' -}}
        {%- if turn.reasoning -%}
            {{- '<think>\n' + turn.reasoning + '\n</think>\n\n' -}}
            {%- set turn.content = turn.content.lstrip('\n') -%}
        {%- endif -%}
        {{- turn.content -}}
        {%- set at.calls = message.tool_calls or ([message.function_call] if message.function_call else []) -%}
        {%- for call in at.calls -%}
            {{- ('\n' if turn.content or not loop.first else '') + call_text(call) -}}
        {%- endfor -%}
        {{- '<|im_end|>\n' -}}
    {%- elif role == 'tool' -%}
        {%- set at.results = at.results + [message] -%}
        {%- if loop.last or role_of(loop.nextitem) != 'tool' -%}
            {{- '<|im_start|>user' + results_text(at.results, at.calls) + '<|im_end|>\n' -}}
            {%- set at.results = [] -%}
        {%- endif -%}
    {%- elif role != 'system' or not loop.first -%}
        {{- '<|im_start|>' + role + '\n' + text_of(message.content) + '<|im_end|>\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
    {{- '<think>\n' if enable_thinking | default(format.open_thinking) else '' -}}
{%- endif -%}"""


def nanbeige_template(default_system: str | None = None, add_bos: bool = False, open_thinking: bool = False) -> str:
    """The template with these settings (see `NanbeigeRenderer`).

    Example:
        >>> template_settings(nanbeige_template("Be kind."))
        {'default_system': 'Be kind.', 'add_bos': False, 'open_thinking': False}
    """
    settings = {"default_system": default_system or "", "add_bos": add_bos, "open_thinking": open_thinking}
    text = _TEMPLATE
    for name, value in (("TOOLS_BEFORE", TOOLS_BEFORE), ("TOOLS_AFTER", TOOLS_AFTER), ("SETTINGS", settings)):
        text = text.replace(f"@{name}@", json.dumps(value, ensure_ascii=False), 1)  # a valid literal in Jinja too
    return text


def template_settings(text: str) -> dict[str, Any] | None:
    """The settings of a template created by `nanbeige_template`; None for any other."""
    if hashlib.blake2b(text.encode(), digest_size=16).hexdigest() == _EARLIER:
        return {"default_system": None, "add_bos": False, "open_thinking": False}
    found = _SETTINGS.match(text)
    if found is None:
        return None
    try:
        settings = json.loads(found[1])
        if nanbeige_template(**settings).strip() != text.strip():
            return None
    except (ValueError, TypeError, RecursionError):
        return None
    return {**settings, "default_system": settings["default_system"] or None}
