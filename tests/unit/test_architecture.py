"""The diagrams of docs/architecture.md show the existing packages."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
DRAWN = runpy.run_path(str(IMAGES / "architecture.py"))


def shown(picture: str) -> list[str]:
    """The texts of a picture."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", (IMAGES / f"{picture}.svg").read_text("utf-8"))


@pytest.mark.parametrize("picture", DRAWN["PICTURES"])
def test_a_picture_is_what_its_script_draws(picture: str) -> None:
    drawn = DRAWN["PICTURES"][picture]().svg()
    assert (IMAGES / f"{picture}.svg").read_text("utf-8") == drawn, "run: python docs/images/architecture.py"


def test_every_room_of_the_import_contract_is_drawn_once_and_nothing_else() -> None:
    *upper, (files, _) = DRAWN["layers"]()
    rooms = [room for names, _ in upper for room in names]
    titles = [text.removesuffix("/").removesuffix(".py") for text in shown("rooms")]
    assert [title for title in titles if title in DRAWN["ROOMS"]] == rooms
    listed = re.findall(r"([a-z_]+)(?:/|\.py)", " ".join(shown("rooms")))
    assert sorted(listed) == sorted([*rooms, *files])


def test_every_room_has_files() -> None:
    for names, _ in DRAWN["layers"]():
        for name in names:
            place = ROOT / "nbg_lightning" / name
            assert place.is_dir() or place.with_suffix(".py").is_file(), name


def test_the_page_shows_every_picture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert set(re.findall(r"\(images/([\w-]+)\.svg\)", page)) == set(DRAWN["PICTURES"])


def test_files_that_pictures_and_page_name_exist() -> None:
    texts = " ".join(text for picture in DRAWN["PICTURES"] for text in shown(picture))
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = re.findall(r"\b((?:\w+/)+\w+\.py)\b", f"{texts} {page}")
    assert len(named) > 8
    for name in named:
        assert any((ROOT / folder / name).is_file() for folder in ("", "nbg_lightning")), name
