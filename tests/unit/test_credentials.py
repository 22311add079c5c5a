"""API keys are in no file of a run."""

import pytest
from jsonargparse import Namespace

from nbg_lightning.credentials import redacted, resolved


def test_keys_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("KEY_OF_MINE", "sk-1")
    assert resolved("env:KEY_OF_MINE") == "sk-1"
    assert resolved("sk-2") == "sk-2"
    assert resolved(None) is None
    monkeypatch.setenv("KEY_OF_MINE", "")
    with pytest.raises(
        ValueError, match="api_key is invalid: env:KEY_OF_MINE; set the environment variable KEY_OF_MINE"
    ):
        resolved("env:KEY_OF_MINE")


def test_settings_are_copied_without_keys():
    given = Namespace(
        model=Namespace(
            init_args=Namespace(engine={"api_key": "sk-1", "url": "u"}, judges=[Namespace(api_key="sk-2")])
        ),
        other=Namespace(api_key="env:MINE", nothing=Namespace(api_key=None)),
    )
    found = redacted(given)
    assert found.model.init_args.engine == {"api_key": "env:NBG_API_KEY", "url": "u"}
    assert found.model.init_args.judges[0].api_key == "env:NBG_API_KEY"
    assert found.other.api_key == "env:MINE"
    assert found.other.nothing.api_key is None
    assert given.model.init_args.engine["api_key"] == "sk-1"
    assert type(found) is Namespace
