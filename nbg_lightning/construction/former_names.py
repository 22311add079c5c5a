"""Former names in files of builds: folders with these names can be read and resumed unchanged.

Classes are recorded under the names that files first knew them by, see `moved.recorded_name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMER_MANIFEST = "about.json"
"""The former name of ``manifest.json``."""

SETTINGS = {"writers": "models", "bar": "exclude"}
"""Former names of settings: as YAML keys they are refused, and the error gives the new names."""

FORMER_OUTCOMES = {"encoding_mended": "encoding_fixed"}
"""Former names of documents' outcomes."""

_REPORT = {"became": "outcomes", "barred": "excluded", "barred_tokens": "excluded_tokens", "about": "manifest"}


def with_current_names(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with current names of settings."""
    renamed = dict(manifest)
    if isinstance(settings := manifest.get("settings"), Mapping):
        renamed["settings"] = {SETTINGS.get(name, name): value for name, value in settings.items()}
    return renamed


def report_with_current_names(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report with current names of entries."""
    return {_REPORT.get(name, name): value for name, value in report.items()}
