"""Stands in until the panels move here."""

from demo.layers import PLACEHOLDER, find_departure
from demo.layers import render_layers as render
from engines.examination import Examination

__all__ = ["PLACEHOLDER", "render", "summarise"]


def summarise(examination: Examination) -> str:
    """What the comparison found, in one sentence."""
    seen = f"{len(examination.stages)} stages looked at"
    others = examination.others
    exact = [each for each in others if not each.rounds_to]
    off = [each.label for each in others if find_departure(examination, each)]
    if off:
        return f"{seen}: {', '.join(off)} {'differs' if len(off) == 1 else 'differ'}."
    if not exact:
        return f"{seen}: how far rounding moves them is below."
    if len(exact) < len(others):
        return f"{seen}: in float32 all are as they should be."
    return f"{seen}: all are as they should be."
