import sys

import pytest

from nbg_lightning.extra import require


def test_what_is_there_and_what_is_not(monkeypatch):
    assert require("json", "nobody").dumps([]) == "[]"
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.linear_model", raising=False)  # another test may have loaded it
    with pytest.raises(ImportError, match=r"^the tagger needs sklearn; pip install 'nbg-lightning\[construction\]'$"):
        require("sklearn.linear_model", "the tagger")
