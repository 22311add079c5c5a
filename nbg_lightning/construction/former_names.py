"""Names in files of builds that were made under earlier names: such folders are read and continued, as they are.

Classes keep the names by which files first knew them, see `moved.recorded_name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMER_MANIFEST = "about.json"
"""The former name of ``manifest.json``."""

SETTINGS = {"writers": "models", "bar": "exclude"}
"""Settings by their former names: the same keys in YAML are refused, and the error names the new ones."""

FORMER_OUTCOMES = {"encoding_mended": "encoding_fixed"}
"""Outcomes of documents by their former names."""

_REPORT = {"became": "outcomes", "barred": "excluded", "barred_tokens": "excluded_tokens", "about": "manifest"}


def with_current_names(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the names of settings as they are."""
    renamed = dict(manifest)
    if isinstance(settings := manifest.get("settings"), Mapping):
        renamed["settings"] = {SETTINGS.get(name, name): value for name, value in settings.items()}
    return renamed


def report_with_current_names(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report with the names of its entries as they are."""
    return {_REPORT.get(name, name): value for name, value in report.items()}
