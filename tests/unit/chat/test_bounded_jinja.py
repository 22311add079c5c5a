from __future__ import annotations

import time

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from nbg_lightning.chat.bounded_jinja import render


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        "{% set s = namespace(x='ab') %}{% for i in range(60) %}{% set s.x = s.x ~ s.x %}{% endfor %}",
        "{% set s = namespace(x='ab') %}{% for i in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}",
        "{{ 'a' * 10**10 }}",
        "{{ 'a'.ljust(10**10) }}",
        "{{ 'a' | center(10**10) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ 9**9**9 }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(30) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ ('a' * 9000).replace('a', 'b' * 90000) | length }}",
        "{{ (['a' * 1000] * 1000) | join('b' * 100000) | length }}",
        "{{ ''.__class__.__mro__ }}",
        "{% set s = namespace(x=[1]) %}{% for i in range(40) %}{% set s.x = [s.x, s.x] %}{% endfor %}{{ s.x }}",
        "{% set s = namespace(x=[1]) %}{% for i in range(40) %}{% set s.x = {1: s.x, 2: s.x} %}{% endfor %}{{ s.x | tojson }}",
        "{% set s = namespace(x=[1]) %}{% for i in range(40) %}{% set s.x = dict(a=s.x, b=s.x) %}{% endfor %}{{ s.x | string }}",
        "{% set s = namespace(x=[1]) %}{% for i in range(40) %}{% set s.x = (s.x + s.x)|batch(2)|list %}{% endfor %}{{ s.x }}",
        "{% set s = namespace(x=(1,), y=(1,)) %}{% for i in range(40) %}{% set s.x = (s.x, s.x) %}{% set s.y = (s.y, s.y) %}"
        "{% endfor %}{{ s.x == s.y }}",
        "{% set s = namespace(x=(1,)) %}{% for i in range(40) %}{% set s.x = (s.x, s.x) %}{% endfor %}{{ {s.x: 1} | length }}",
        "{{ ('a' * 1000000).translate({97: 'b' * 10000}) | length }}",
        "{{ ('\t' * 100000).expandtabs(1000000) | length }}",
        "{{ ('a\n' * 100000) | indent(1000000) | length }}",
        "{{ messages.append(1) }}",
    ],
)
def test_templates_that_would_not_end_are_refused(template):
    begin = time.process_time()
    with pytest.raises(TemplateError):
        render(template, False, messages=[1])
    assert time.process_time() - begin < 12


def test_text_is_that_of_transformers(templates):
    messages = [{"role": "user", "content": "é <b>"}, {"role": "assistant", "content": "x"}]
    tools = [{"function": {"name": "ü", "parameters": {"a": [1, None]}}}]
    more = "{{ 'x' ~ 1 ~ none }} {{ 'a' + 'b' }} {{ [1] + [2] }} {{ 3 * 'ab' }} {% for m in messages %}{{ loop.index }}"
    more += (
        "{{ loop.last }}{{ loop.length }}{{ (loop.nextitem or {}).role }}{% if loop.first %}{% continue %}{% endif %}"
    )
    more += "{% endfor %}"
    for template in (*templates.values(), more, "{{ tools | tojson(indent=2) }}"):
        generation = "generation" in template and "endgeneration" in template
        theirs, spans = render_jinja_template([messages], tools, None, template, generation, bos_token="<s>")
        ours = render(template, generation, messages=messages, tools=tools, documents=None, bos_token="<s>")
        assert ours[0] == theirs[0]
        assert ours[1] == (spans[0] if spans else [])
