"""Builder settings have the same names in options and YAML, and errors say what to write."""

import json

import pytest

from nbg_lightning.cli import main
from nbg_lightning.commands.builder import BuilderCommand
from nbg_lightning.commands.precheck import check_builder
from nbg_lightning.commands.settings import instantiate, make_datamodule, parse_settings, read_config, settings_parser
from nbg_lightning.commands.table import OWN_COMMANDS, own_command
from nbg_lightning.construction import AnnotationBuilder, Builder, PoolSize, SelectionBuilder
from nbg_lightning.construction.former_names import SETTINGS

BUILDERS = [name for name, (module, _) in OWN_COMMANDS.items() if module.startswith("builder:")]
NEEDED = ["--corpus", "c", "--columns", "[t]", "--out", "o"]


def settings_of(*options):
    return parse_settings(settings_parser("build-selection", SelectionBuilder), list(options), SETTINGS)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_is_one_and_its_command_has_its_name(name):
    command = own_command(name)
    assert isinstance(command, BuilderCommand)
    assert issubclass(command.kind, Builder) and command.kind.name == name
    shown = command.parser().format_help()
    assert "--config CONFIG" in shown and "--out OUT" in shown
    options = [word for word in shown.split() if word.startswith("--")]
    assert options and not any("_" in option for option in options)


@pytest.mark.parametrize(
    "option", ["--tokens-per-step", "--tokens_per_step", "--tokens-per-step=16", "--tokens_per_step=16"]
)
def test_dashes_and_underscores(option):
    given = [option] if "=" in option else [option, "16"]
    assert settings_of(*NEEDED, *given)["tokens_per_step"] == 16


def test_nested_settings():
    found = settings_of(*NEEDED, "--hq.share", "0.25", "--mq.threshold=3")
    assert found["hq"] == PoolSize(share=0.25) and found["mq"] == PoolSize(threshold=3)
    builder = own_command("build-refinements").builder(
        [
            *(
                "--questions",
                '{"q": {"class_path": "nbg_lightning.data.QuestionJsonLines", "init_args": {"path": "p"}}}',
            ),
            *(
                "--models",
                '{"m": {"engine": {"class_path": "nbg_lightning.engines.ServerEngine", "init_args": {"url": "u"}}}}',
            ),
            *("--drafters", "[m]", "--evaluators", "[m]", "--reviser", "m", "--out", "o"),
            *("--drafting.max-new-tokens", "7", "--evaluating.max_new_tokens=9"),
        ]
    )
    assert builder.drafting.max_new_tokens == 7 and builder.evaluating.max_new_tokens == 9


def test_later_files_and_options_win(tmp_path):
    (tmp_path / "a.yaml").write_text("out: a\ncorpus: c\ncolumns: [t]\nseed: 1\nsequence_length: 64\n")
    (tmp_path / "b.yaml").write_text("seed: 2\n")
    files = [f"--config={tmp_path / 'a.yaml'}", "--config", str(tmp_path / "b.yaml")]
    found = settings_of(*files, "--out", "b")
    assert (found["out"], found["seed"], found["sequence_length"]) == ("b", 2, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([*NEEDED, "--bar", "[x]"], "bar is invalid: this setting has another name; write exclude"),
        ([*NEEDED, "--exclued", "[x]"], "did you mean exclude?"),
        ([*NEEDED, "--seed", "x"], "seed is invalid: x; expected int"),
        (["c.yaml"], "give a config as: nbg build-selection --config c.yaml"),
        ([], "corpus, columns is invalid: not given; give --config FILE with it, or the option"),
        ([*NEEDED, "--hq.share", "3"], "share is invalid: 3"),
        ([*NEEDED, "--limits", "{depth: [1]}"], "limits of depth is invalid: \\[1"),
    ],
)
def test_errors_are_one_line(capsys, options, message):
    assert main(["build-selection", *options]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line]
    assert line.startswith("nbg build-selection: error: ")
    assert message.replace("\\", "") in line


@pytest.mark.parametrize(("former", "current"), sorted(SETTINGS.items()))
def test_a_former_setting_in_yaml_names_the_current_one(tmp_path, capsys, former, current):
    complete = {"out": "o", "corpus": "c", "columns": ["t"], "conversations": {}}
    command = "build-selection" if former == "bar" else "build-chains"
    needed = ("out", "corpus", "columns") if former == "bar" else ("out", "conversations")
    (tmp_path / "old.yaml").write_text(json.dumps({former: {"m": 1}, **{name: complete[name] for name in needed}}))
    assert main([command, "--config", str(tmp_path / "old.yaml")]) == 2
    assert f"{former} is invalid: this setting has another name; write {current}" in capsys.readouterr().err


def test_a_cache_takes_its_config_as_builders_do(capsys, tmp_path):
    assert main(["build-cache", "c.yaml"]) == 2
    assert "config" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text("model: {}\n")
    assert main(["build-cache", "--config", str(tmp_path / "c.yaml")]) == 2
    assert "no model.init_args.teacher" in capsys.readouterr().err


def test_configs_are_merged_key_by_key(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "data: {class_path: ChatDataModule, init_args: {prepare_workers: 1, num_workers: 2}}\nseed: 3\n"
    )
    (tmp_path / "b.yaml").write_text("data: {init_args: {num_workers: 5}}\n")
    merged = read_config([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])
    data = {"class_path": "nbg_lightning.ChatDataModule", "init_args": {"prepare_workers": 1, "num_workers": 5}}
    assert merged == {"data": data, "seed": 3}
    (tmp_path / "c.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="CONFIG is invalid"):
        read_config([str(tmp_path / "c.yaml")])


def test_objects_of_yaml():
    from nbg_lightning.rewards.protocol import Reward

    found = instantiate(Reward, {"class_path": "nbg_lightning.rewards.MathReward", "init_args": {"workers": 1}}, "here")
    assert type(found).__name__ == "MathReward"
    with pytest.raises(ValueError, match=r"^here: .*nothing"):
        instantiate(Reward, {"class_path": "nbg_lightning.rewards.MathReward", "init_args": {"nothing": 1}}, "here")
    with pytest.raises(ValueError, match=r"c.yaml has no data.class_path"):
        make_datamodule({}, "c.yaml")


def test_builders_read_exponents(tmp_path):
    (tmp_path / "c.yaml").write_text("{corpus: c, out: o, labels: {a: {b: 9}}, number: 2e3, temperature: 1e-1}")
    parser = settings_parser("build-annotations", AnnotationBuilder)
    found = parse_settings(parser, ["--config", str(tmp_path / "c.yaml")], {})
    assert (found["number"], type(found["number"]), found["temperature"]) == (2000, int, 0.1)


def test_short_forms_are_read_by_builders_too(tmp_path):
    config = tmp_path / "chains.yaml"
    config.write_text(
        "out: runs/chains\nsummary_sentences: 2\n"
        "conversations: {made: {ReasoningGymChat: {tasks: [gsm_symbolic], count: 3}}, mine: my/chats.jsonl}\n"
    )
    parser = BuilderCommand("solutions.chains.ChainCompletionBuilder").parser()
    for arguments in (["--config", str(config)], [f"--config={config}"]):
        check_builder("nbg_lightning.construction.ChainCompletionBuilder", arguments, SETTINGS)
        found = parse_settings(parser, arguments, SETTINGS)["conversations"]
        assert {name: type(source).__name__ for name, source in found.items()} == {
            "made": "ReasoningGymChat",
            "mine": "ChatJsonLines",
        }
