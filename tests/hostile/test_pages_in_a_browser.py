"""Pages with model-written text in a real browser: the text is not executed, nothing is fetched, and pages fit a phone."""

import json

import pytest
from browser import BROWSER, Browser

from nbg_lightning.cli import main
from nbg_lightning.recipe.gather import gather
from nbg_lightning.recipe.plan import Recipe
from nbg_lightning.recipe.report import write_report

pytestmark = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed: apt-get install chromium")

OWN = "document.documentElement.dataset.owned=1;fetch('http://127.0.0.1:9/fetched')"
ATTACKS = [
    f"<script>{OWN}</script>",
    f"</script><script>{OWN}</script>",
    f'<img src=x onerror="{OWN}">',
    f'<svg onload="{OWN}"></svg>',
    f'<iframe srcdoc="<script>parent.{OWN}</script>"></iframe>',
    f'<details open ontoggle="{OWN}">x</details>',
    "<img src=http://127.0.0.1:9/image><link rel=stylesheet href=http://127.0.0.1:9/style>",
    "<style>@import 'http://127.0.0.1:9/imported'; * {background: url(http://127.0.0.1:9/background)}</style>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/refreshed'>",
    f'" autofocus onfocus="{OWN}" x="',
    f"' autofocus onfocus='{OWN}' x='",
    f"--></style></textarea></title><script>{OWN}</script>",
    f"javascript:{OWN}",
    "\x1b[31mred\x1b]8;;http://127.0.0.1:9/link\x07link\x1b]8;;\x07",
    "\u202etxet\u202c \u2066isolated\u2069 \ud83d \0",
    "a" * 3_000_000,
    "<b>" * 200_000,
]
WIDTHS = (390, 768, 1280)


def rollout(step, attack):
    turn = {"role": "user", "content": attack}
    answer = {
        "text": attack, "reward": 1.0, "status": attack, "advantage": 0.7, "trained": True, "tokens": 14,
        "finish_reason": attack, "detail": attack,
    }  # fmt: skip
    return {
        "step": step,
        "source": attack[:50],
        "question": [turn],
        "gold": attack,
        "rewards": [1.0],
        "answers": [answer],
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def fetched(browser):
    return [url for url in browser.requests if not url.startswith(("file:", "data:", "about:"))]


def test_the_browser_sees_an_attack_that_is_not_escaped(browser, tmp_path):
    (tmp_path / "bad.html").write_text(f"<!doctype html><body>{ATTACKS[0]}")
    browser.open(tmp_path / "bad.html")
    assert browser.value("document.documentElement.dataset.owned") == "1"
    assert fetched(browser) == ["http://127.0.0.1:9/fetched"]
    browser.requests.clear()


def assert_harmless(browser, page, width, dark):
    browser.open(page, width, dark)
    assert browser.value("document.documentElement.dataset.owned") is None
    assert browser.value("location.protocol") == "file:"
    assert fetched(browser) == []
    assert (
        browser.value("document.querySelectorAll('iframe, link, img[src^=http], meta[http-equiv=refresh]').length") == 0
    )
    text = browser.value("document.documentElement.textContent")
    assert not set(text) & set("\x1b\x07\u202e\u2066\0")
    assert browser.value("document.documentElement.scrollWidth") <= width  # nothing hangs over the edge
    return text


@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_of_rollouts(browser, tmp_path, width):
    for run in "ab":
        (tmp_path / run).mkdir()
        rows = [rollout(step, attack) for step, attack in enumerate(ATTACKS)]
        (tmp_path / run / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = tmp_path / "view.html"
    assert (
        main(
            ["view", str(tmp_path / "a" / "rollouts.jsonl"), str(tmp_path / "b" / "rollouts.jsonl"), "--out", str(page)]
        )
        == 0
    )
    text = assert_harmless(browser, page, width, dark=width == 768)
    assert "<script>document" in text and "\\x1b[31m" in text and "\\u202e" in text
    assert browser.value("document.scripts.length") == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_of_a_recipe(browser, tmp_path, width):
    attack = " ".join(ATTACKS[:15]).replace("\ud83d", "")  # no recipe can have half of a pair: its YAML is refused
    (tmp_path / "c.yaml").write_text("a: 1\n")
    steps = {"base": {"command": "fit", "config": str(tmp_path / "c.yaml")}}
    content = {"name": attack, "folder": str(tmp_path / "runs"), "about": attack, "steps": steps}
    (tmp_path / "r.yaml").write_text(json.dumps(content))
    recipe = Recipe.from_yaml(tmp_path / "r.yaml")
    folder = recipe.step_folder("base")
    folder.mkdir(parents=True)
    record = {"key": recipe.key("base"), "done": True, "command": [attack], "seconds": 61.0, "parts": 1}
    (folder / "step.json").write_text(json.dumps(record))
    lines = [{"step": step, "train/loss": 5.0 - step, f"val/{attack}/loss": 3.0 - step / 2} for step in range(5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(rollout(step, attack)) + "\n" for step in (1, 2)))
    assert_harmless(browser, write_report(recipe, gather(recipe)), width, dark=width == 768)
