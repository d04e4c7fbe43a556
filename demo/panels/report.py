"""Stands in until the panels move here."""

from __future__ import annotations

from typing import Any

from demo import record
from demo.report import write_report
from demo.snapshot import Comparison


def render_report(comparison: Comparison, drawn: dict[str, Any] | None = None) -> str:
    """The report."""
    features = (drawn or {}).get("features", ())
    return write_report(comparison, record.describe(comparison), features)
