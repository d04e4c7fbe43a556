"""Where two engines part, which half of the model parts them, and which of them is right."""

from __future__ import annotations

from collections.abc import Mapping

from demo.panels.templating import render_template
from engines.analysis.records import Divergence, Pairing, format_margin, quote

EXACT = "PyTorch in float64"

MOST_LETTERS = 160
"""How much of the window's text is shown before the candidates."""


def render(result: Divergence) -> str:
    """Render the sentences, the text up to the candidates, and the step in every pairing."""
    labels = dict(zip(result.engines, result.labels, strict=True)) | {"float64": EXACT}
    steps = [*result.pairings, *([result.judge] if result.judge else [])]
    moves = (result.encoder_moves, result.decoder_moves)
    return render_template(
        "why.html",
        result=result,
        sentences=result.sentences(),
        before=result.before[-MOST_LETTERS:],
        cut=len(result.before) > MOST_LETTERS,
        columns=["Encoder", "Decoder", *map(str, result.candidates), "Margin"],
        rows=[list_figures(each, labels) for each in steps],
        best=[f"{quote(text)} {logprob:.3f}" for text, logprob in result.judge_best],
        moves=[format_margin(each) for each in moves if each is not None],
    )


def list_figures(step: Pairing, labels: Mapping[str, str]) -> list[str]:
    """Return a row: what computed the step, both candidates' log-probabilities, and the margin."""
    figures = ["–" if each is None else f"{each:.4f}" for each in step.logprobs]
    margin = "–" if step.margin is None else format_margin(step.margin)
    return [labels[step.encoder], labels[step.decoder], *figures, margin]


def summarise(result: Divergence) -> str:
    """Say in one sentence where the engines part, for the line above the panel."""
    return result.sentences()[0]
