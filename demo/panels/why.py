"""Where two engines part, which half of the model parts them, and which of them is right."""

from __future__ import annotations

from demo.panels.templating import render_template
from engines.analysis.divergence_records import Divergence, Pairing, format_margin
from engines.analysis.records import quote

EXACT = "PyTorch in float64"

MOST_LETTERS = 160
"""How much of the window's text is shown before the candidates."""


def render(result: Divergence) -> str:
    """Render the sentences after that of `summarise`, which stands above the panel, the text up to
    the candidates, and the step in every pairing."""
    one, other = result.labels
    halves = [(one, one), (one, other), (other, one), (other, other)]
    rows = [list_figures(*each) for each in zip(result.pairings, halves, strict=False)]
    judges = [result.judge] if result.judge else result.judges
    names = [f"{EXACT}, {model}" for model in result.models] or [EXACT]
    rows += [list_figures(each, (name, name)) for each, name in zip(judges, names, strict=False)]
    moves = (result.encoder_moves, result.decoder_moves)
    return render_template(
        "why.html",
        result=result,
        sentences=result.sentences()[1:],
        before=result.before[-MOST_LETTERS:],
        cut=len(result.before) > MOST_LETTERS,
        columns=["Encoder", "Decoder", *map(str, result.candidates), "Margin"],
        rows=rows,
        best=[f"{quote(text)} {logprob:.3f}" for text, logprob in result.judge_best],
        moves=[format_margin(each) for each in moves if each is not None],
    )


def list_figures(step: Pairing, halves: tuple[str, str]) -> list[str]:
    """Return a row: what computed the step, both candidates' log-probabilities, and the margin."""
    figures = ["–" if each is None else f"{each:.4f}" for each in step.logprobs]
    margin = "–" if step.margin is None else format_margin(step.margin)
    return [*halves, *figures, margin]


def summarise(result: Divergence) -> str:
    """Say in one sentence where the engines part, for the line above the panel."""
    return result.sentences()[0]
