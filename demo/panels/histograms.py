"""Histograms as small SVG charts: areas, outlines and differences as paths."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engines.metrics import SharedHistograms, Shares

FLATTEST_SCALE = 0.01
"""A difference is never magnified more than to this share of the tallest bar: identical features
look identical."""


@dataclass(frozen=True)
class Chart:
    """One small chart in a box of 100 × 100.

    `tone`: its colour. `paths`: class and SVG path of each. `axis`: what stands beneath it, from
    left to right. `tips`: what a tooltip says of each bin.
    """

    title: str
    note: str
    tone: str
    paths: tuple[tuple[str, str], ...]
    axis: tuple[str, ...]
    tips: tuple[str, ...] = ()


def trace(heights: Iterable[float], bins: int) -> str:
    """Draw steps across the width, one for each bin, `heights` from the top."""
    return "".join(
        f"V{height:.1f}H{(at + 1) * 100 / bins:.1f}" for at, height in enumerate(heights)
    )


def draw_shares(shares: Shares, tallest: float, outline: bool = False) -> tuple[str, str]:
    """Draw a histogram as one path, which weighs a tenth of as many bars."""
    steps = trace((100 - 94 * float(share) / tallest for share in shares), len(shares))
    return ("outline", f"M0 100{steps}V100") if outline else ("area", f"M0 100{steps}V100Z")


def draw_difference(gaps: Shares, scale: float) -> tuple[tuple[str, str], ...]:
    """Draw a difference up and down from a middle line."""
    steps = trace((50 - 46 * float(gap) / scale for gap in gaps), len(gaps))
    return ("zero", "M0 50H100"), ("area", f"M0 50{steps}V50Z")


def scale_difference(
    histograms: SharedHistograms, name: str, baseline: str, tallest: float
) -> tuple[Shares, float, float]:
    """Return the difference of two histograms, its largest size, and the scale to draw it on."""
    gaps = histograms.difference(name, baseline)
    largest = float(abs(gaps).max())
    return gaps, largest, max(largest, FLATTEST_SCALE * tallest)
