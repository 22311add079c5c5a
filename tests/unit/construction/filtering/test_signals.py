import pytest

from nbg_lightning.construction.filtering.signals import RULES, Signals, failed_rules, signals

PROSE = (
    "The committee met in the morning and decided that the bridge should be built of stone. "
    "Its engineer had argued for iron, with reasons of cost and of time, but nobody trusted the ground. "
    "In the end the river itself settled the matter: a flood took away the old piers, and what was left of them "
    "showed how deep the mud lay. Work began again in spring, this time on piles driven to the rock.\n\n"
    "Nobody has ever regretted it. The bridge carries more traffic today than its builders could have imagined, "
    "and the accounts, which were kept to the penny, still have the names of everyone who paid.\n"
)


def test_prose_passes():
    assert failed_rules(signals(PROSE)) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Too short to be of use to the world.", "gopher/num_words"),
        ("antidisestablishmentarianism incomprehensibilities the of " * 20, "gopher/mean_word_length"),
        (PROSE + "# " * 40, "gopher/symbols"),
        ("- a point that has the form of a list\n" * 30, "gopher/bullets"),
        ("the text that goes on and on ...\n" * 20, "gopher/ellipses"),
        (PROSE + "1 2 3 4 5 6 " * 20, "gopher/alphabetic_words"),
        ("Lorem ipsum dolor sit amet consectetur " * 10, "gopher/stop_words"),
        ("Lorem ipsum dolor sit amet consectetur " * 10, "c4/lorem_ipsum"),
        (PROSE + "Please enable javascript\n", "c4/javascript"),
        (PROSE.replace("\n", "\nterms of use, privacy policy, cookie policy.\n"), "c4/policies"),
        ("if (the) {of} " * 20, "c4/braces"),
        ("a line without an end that is\nanother such line of the kind\n" * 20, "c4/sentence_lines"),
        ("the same line of text.\n" * 50, "repetition/lines"),
        ("the same line of text.\n" * 50, "repetition/line_characters"),
        ("the same paragraph.\n\n" * 20, "repetition/paragraphs"),
        ("buy now " * 60, "repetition/top_2_grams"),
        ("buy it now " * 60, "repetition/top_3_grams"),
        ("buy it now please " * 60, "repetition/top_4_grams"),
        (PROSE * 2, "repetition/5_grams"),
        (PROSE * 2, "repetition/10_grams"),
    ],
)
def test_each_rule_fails(text, rule):
    assert rule in failed_rules(signals(text))
    assert RULES[rule].signal in signals(text)


def test_by_hand():
    found = signals("a b a b c\na b a b c\n")
    assert found["num_words"] == 10
    assert found["num_lines"] == 2
    assert found["mean_word_length"] == 1
    assert found["duplicate_lines"] == 0.5
    assert found["duplicate_line_characters"] == 0.5
    assert found["top_2_gram_characters"] == pytest.approx(4 * 2 / 10)  # "a b", four times
    assert found["top_3_gram_characters"] == pytest.approx(2 * 3 / 10)
    assert found["duplicate_5_gram_characters"] == pytest.approx(0.5)  # the second five words
    assert found["duplicate_10_gram_characters"] == 0


@pytest.mark.parametrize("text", ["", " ", "\n", "...", "漢字", "\ufffd", "<", "a" * 100_000])
def test_odd_texts_have_finite_signals(text):
    step = Signals()
    (row,) = step.values([text])
    assert set(row) == set(step.columns)
    assert all(-1e9 < value < 1e9 for name, value in row.items() if name != "failed_rules")


def test_every_rule_is_of_a_column():
    assert {rule.signal for rule in RULES.values()} < set(Signals().columns)
