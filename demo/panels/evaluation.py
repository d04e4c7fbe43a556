"""Many clips: totals of each engine, a table of clips and engines, and two engines' error rates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import plotly.graph_objects as go

from demo.clip_set import Results
from demo.panels import charts
from demo.panels.templating import render_template
from engines.benchmark.evaluation_lines import Line
from engines.metrics import compare, name_count, split_words

NO_SCATTER = "A chart of error rates needs two engines, and clips whose words are known."
NOTE = (
    "On the line both make as many errors; below it the engine of the upright axis makes fewer. "
    "Click a dot to run the engines on that clip."
)


@dataclass(frozen=True)
class Total:
    """A row of figures over all clips of one engine, as text."""

    label: str
    colour: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """What one engine made of one clip: the main figure, a smaller note, and the state."""

    figure: str
    note: str = ""
    state: str = "done"


@dataclass(frozen=True)
class Row:
    """A clip. `same`: whether all engines are done and wrote the same words, or one wrote the
    right ones."""

    number: int
    name: str
    seconds: str
    cells: tuple[Cell, ...]
    same: bool


@lru_cache(maxsize=4)
def render_totals(results: Results) -> str:
    """Render a row of each engine over the clips that it is done with."""
    totals = []
    for number, lane in enumerate(results.lanes):
        for summary in results.summarise(number):
            label = lane.label + (", in characters" if summary["unit"] == "character" else "")
            totals.append(Total(label, lane.colour, tuple(list_cells(results, number, summary))))
    return render_template("evaluation_totals.html", totals=totals)


def list_cells(results: Results, lane: int, summary: dict[str, Any]) -> list[str]:
    """Return the cells of an engine's totals."""
    done = f"{summary['clips']} of {len(results.clips)}"
    failed = f", {summary['failed']} failed" if summary["failed"] else ""
    rate, interval, pace = (summary[x] for x in ("error_rate", "interval", "real_time_factor"))
    return [
        done + failed,
        "–" if rate is None else f"{rate:.2%}",
        "–" if interval is None else " to ".join(f"{end:.2%}" for end in interval),
        f"{summary['errors']:,} of {summary['expected']:,}" if summary["expected"] else "–",
        "baseline" if lane == results.baseline else describe_differences(results, lane),
        f"{1 / pace:.1f}×" if pace else "–",
    ]


def describe_differences(results: Results, lane: int) -> str:
    """Say in how many clips an engine wrote other words than the baseline."""
    pairs = zip(results.of_lane(lane), results.of_lane(results.baseline), strict=True)
    counts = [n for ours, theirs in pairs if (n := count_differences(ours, theirs)) is not None]
    differing = [count for count in counts if count]
    if not counts:
        return "–"
    if not differing:
        return "none"
    return f"{name_count(sum(differing))} in {name_count(len(differing), 'clip')}"


def count_differences(ours: Line | None, theirs: Line | None) -> int | None:
    """Count the words of one line that are not the other's; None where one has no text."""
    if not (ours and theirs) or ours["error"] or theirs["error"]:
        return None
    return count_words_apart(theirs["text"], ours["text"])


@lru_cache(maxsize=2000)
def count_words_apart(expected: str, found: str) -> int:
    return 0 if expected == found else compare(expected, found).errors


@lru_cache(maxsize=4)
def render_table(results: Results) -> list[str]:
    """Render a row for each clip, in parts of which only the changed ones travel."""
    rows = [make_row(results, number) for number in range(len(results.clips))]
    html = render_template("evaluation_table.html", rows=rows, results=results)
    return html.split("<!--part-->")


def make_row(results: Results, number: int) -> Row:
    """Make a clip's row."""
    lines, cells, apart = results.of_clip(number), [], []
    for lane, line in enumerate(lines):
        if line is None:
            running = results.current == lane * len(results.clips) + number
            cells.append(Cell("…", "runs now", "running") if running else Cell("·", "", "waiting"))
        elif line["error"]:
            cells.append(Cell("failed", line["error"], "failed"))
        else:
            base = None if lane == results.baseline else lines[results.baseline]
            cells.append(make_cell(line, different := count_differences(line, base)))
            apart.append(different or 0)
    whole = len(apart) == len(lines)
    same = whole and not any(apart) and (len(lines) > 1 or not (lines[0] or {}).get("errors"))
    known = next((line for line in lines if line and not line["error"]), None)
    seconds = f"{known['audio_seconds']:.1f} s" if known else ""
    return Row(number, results.clips[number].name, seconds, tuple(cells), same)


def make_cell(line: Line, different: int | None) -> Cell:
    """Make the cell of a line: its error rate where the words are known, and what differs."""
    pace = f"{1 / line['real_time_factor']:.1f}×" if line["real_time_factor"] else ""
    words = "" if different is None else "same words" if not different else f"{different} differ"
    state, note = "differs" if different else "done", ", ".join(filter(None, [words, pace]))
    if line["expected"] is None:
        return Cell(words or name_count(len(split_words(line["text"]))), pace, state)
    if line["error_rate"] is None:  # nothing is said
        return Cell(f"{line['errors']} added" if line["errors"] else "silent", note, state)
    return Cell(f"{line['error_rate']:.1%}", note, state)


def render_scatter(results: Results) -> str:
    """Render a dot for each clip whose words are known: the error rates of two engines."""
    rates = [
        [100 * line["error_rate"] if line and line.get("error_rate") is not None else None
         for line in results.of_lane(lane)]
        for lane in range(len(results.lanes))
    ]  # fmt: skip
    pairs = [
        (one, other, found)
        for one, other in combinations(range(len(results.lanes)), 2)
        if (found := [n for n, pair in enumerate(zip(rates[one], rates[other], strict=True))
                      if None not in pair])
    ]  # fmt: skip
    if not pairs:
        return render_template("nothing.html", sentence=NO_SCATTER)
    most = 1.05 * max((x for lane in rates for x in lane if x is not None), default=0.0) or 1.0
    figure = go.Figure(layout=make_layout(results, pairs[0], most))
    for number, (one, other, found) in enumerate(pairs):
        names = [charts.plain(results.clips[n].name) for n in found]
        x, y = ([round(rates[lane][n] or 0.0, 2) for n in found] for lane in (one, other))
        figure.add_scatter(
            x=x,
            y=y,
            mode="markers",
            visible=not number,
            showlegend=False,
            cliponaxis=False,
            marker={"size": 12, "opacity": 0.75, "color": charts.tone(results.lanes[other].colour)},
            customdata=[str(n) for n in found],
            hovertext=[
                f"{name}<br>{a:.1f}% and {b:.1f}%" for name, a, b in zip(names, x, y, strict=True)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    options = [
        charts.Option(
            f"{results.lanes[one].label} and {results.lanes[other].label}",
            {"visible": [each == number for each in range(len(pairs))]},
            {
                "xaxis.title.text": name_axis(results, one),
                "yaxis.title.text": name_axis(results, other),
            },
        )
        for number, (one, other, _) in enumerate(pairs)
    ]
    controls = [charts.Control("evaluation-pair", "Engines", options)] if len(pairs) > 1 else []
    rows = [
        [clip.name, *("–" if lane[n] is None else f"{lane[n]:.1f}%" for lane in rates)]
        for n, clip in enumerate(results.clips)
    ]
    table = charts.Table(("Clip", *(lane.label for lane in results.lanes)), rows)
    title = "Error rates of two engines, a dot for each clip"
    return charts.render_chart(figure, title, table, 340, "evaluation-rates", controls, note=NOTE)


def make_layout(results: Results, pair: tuple[int, int, list[int]], most: float) -> dict[str, Any]:
    """Return the layout: both axes alike, and the line where both engines are."""
    axes = {
        f"{axis}axis": {"title": {"text": name_axis(results, lane)}, "range": [0, most]}
        for axis, lane in zip("xy", pair[:2], strict=True)
    }
    line = {"color": "var(--quiet)", "width": 1, "dash": "dot"}
    shape = {"type": "line", "x0": 0, "y0": 0, "x1": most, "y1": most, "line": line}
    margin = {"l": 60, "r": 16, "t": 16, "b": 44}
    return {"margin": margin, **axes, "shapes": [{**shape, "layer": "below"}]}


def name_axis(results: Results, lane: int) -> str:
    return f"{charts.plain(results.lanes[lane].label)}, errors in %"
