"""What the commands print: progress, segments, texts with differences marked, and tables."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from engines import metrics
from engines.analysis.divergence_records import Divergence, format_margin
from engines.analysis.faults import FaultResult
from engines.analysis.records import LayerComparison
from engines.base import Clip, Listener, PrepareSeconds, Progress, Segment, Transcript
from engines.benchmark.machine import Machine
from engines.clip_clock import set_clock

RUNS = (
    ("words unlike", "unlike_words", "d", 1),
    ("times faster", "times_faster", ".2f", 1),
    ("total s", "total", ".2f", 1),
    ("least s", "total min", ".2f", 1),
    ("most s", "total max", ".2f", 1),
    ("mel s", "mel", ".2f", 1),
    ("encode s", "encode", ".2f", 1),
    ("decode s", "decode", ".2f", 1),
    ("real-time factor", "real_time_factor", ".3f", 1),
)
PARTS = (
    ("encoder, ms for 30 s", "encode_per_window", ".1f", 1e3),
    ("decoder, ms a token", "decode_per_token", ".2f", 1e3),
    ("drafted, %", "drafted", ".0f", 100),
    ("load s", "load", ".2f", 1),
    ("compile s", "compile", ".2f", 1),
    ("peak MB", "peak_memory_bytes", ".0f", 1e-6),
)
"""Columns of a benchmark's two tables: title, a figure's name, its format and a factor."""


class PrintProgress(Listener):
    """Prints each stage of getting ready once, and a download's megabytes on a terminal."""

    def __init__(self) -> None:
        self._stage = ""

    def progress(self, progress: Progress) -> None:
        text = progress.note or progress.stage
        if progress.stage == "downloading" and progress.total and sys.stderr.isatty():
            size = f"{progress.done / 1e6:.0f} of {progress.total / 1e6:.0f} MB"
            typer.echo(f"\r{text} … {size}", err=True, nl=progress.done >= progress.total)
        elif text != self._stage:
            typer.echo(f"{text} …", err=True)
        self._stage = text


class PrintSegments(Listener):
    """Prints each segment of a clip when it is final, unless `quiet`, and shows a bar meanwhile
    where standard error is a terminal."""

    def __init__(self, clip: Clip, quiet: bool = False) -> None:
        self._source, self._quiet, self._bar = clip.source, quiet, make_bar()
        self._task = self._bar.add_task("", total=clip.seconds) if self._bar else None

    def __enter__(self) -> PrintSegments:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def progress(self, progress: Progress) -> None:
        """Move the bar, which counts seconds of audio."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, description=progress.stage, completed=progress.done)

    def segment(self, segment: Segment) -> None:
        """Print a line with the segment's times in seconds, then its words' if they are timed."""
        if self._quiet:
            return
        segment = set_clock(segment, self._source)
        print_line(f"[{segment.start:7.2f} → {segment.end:7.2f}] {segment.text.strip()}")
        for word in segment.words or ():
            print_line(f"    {word.start:7.2f} → {word.end:7.2f}  {word.text.strip()}")


def make_bar() -> Bar | None:
    """Return a bar for a terminal on standard error, which goes when it ends; what is printed to
    the same terminal stands above it."""
    if not sys.stderr.isatty():
        return None
    columns = (
        "{task.description:>9}",
        BarColumn(None),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Bar(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())


def print_line(line: str) -> None:
    """Print a line, with a plain arrow where the terminal has none."""
    try:
        "→".encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = line.replace(" → ", " -> ")
    print(line, flush=True)  # not `typer.echo`, which would break into the bar


def escape_unencodable() -> None:
    """Let a terminal or a pipe that is not UTF-8 show escapes for characters that it lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def transcript_json(transcript: Transcript, prepared: PrepareSeconds, clip: Clip) -> dict[str, Any]:
    """Return the documented JSON object; all times in seconds, on the clock of the clip's file."""
    plain = ("engine", "model", "device", "dtype", "language", "language_probability", "text")
    source, segments = clip.source, []
    for each in (set_clock(each, source) for each in transcript.segments):
        segment = {name: getattr(each, name) for name in ("start", "end", "text", "tokens")}
        segments.append(segment)
        if each.words is not None:
            segment["words"] = [vars(word) for word in each.words]
    return {
        "clip": clip.name,
        **{name: getattr(transcript, name) for name in plain},
        "tokens": transcript.tokens,
        "segments": segments,
        "seconds": {"prepare": prepared.total, **transcript.seconds.as_dict()},
        "audio_seconds": transcript.audio_seconds,
        "tracks": [vars(each) for each in source.tracks],
        "track": source.track,
        "channel": source.channel,
        "notes": source.sentences(),
    }


def print_json(content: Mapping[str, Any]) -> None:
    """Print one line of JSON, of plain letters where a terminal or pipe is not UTF-8."""
    plain = (sys.stdout.encoding or "utf-8").lower().replace("-", "") != "utf8"
    print(json.dumps(content, ensure_ascii=plain, allow_nan=False))


def print_text(title: str, text: str | Text, style: str = "") -> None:
    """Print a title and, indented below it, a text that is wrapped."""
    body = Padding(Text(text, style) if isinstance(text, str) else text, (0, 0, 0, 4), expand=False)
    Console(highlight=False).print("", Text(title, style="bold"), body, sep="\n")


def print_differences(
    transcript: Transcript, spoken: str | None, than: str, expected: str | None
) -> None:
    """Print a text with its time and error rate, and mark what differs from `expected` words.

    `spoken`: the words really spoken, where they are known; `than`: whose words are expected.
    """
    title = f"{transcript.engine}, {transcript.seconds.total:.2f} s"
    if spoken:
        score = metrics.score(spoken, transcript.text, transcript.language)
        title += f", word error rate {number(score.normalised_word_error_rate, '.1%')}"
    if expected is None:
        print_text(title, transcript.text.strip())
        return
    alignment = metrics.compare(expected, transcript.text)
    count = metrics.name_count(alignment.errors)
    verdict = f"{count} unlike" if alignment.errors else "the same words as"
    parts = []
    for edit in alignment.edits:  # marked as wdiff does, which needs no colour
        before, after = map(metrics.join_words, (edit.expected, edit.found))
        if edit.change == "equal":
            parts.append(Text(after))
            continue
        parts += [Text(f"[-{before}-]", style="red")] if before else []
        parts += [Text(f"{{+{after}+}}", style="green")] if after else []
    print_text(f"{title}; {verdict} {than}", Text(" ").join(parts))


def print_table(rows: Sequence[Mapping[str, str]], markdown: bool = False) -> None:
    """Print rows of cells by title, as Markdown where asked to or standard output is a pipe."""
    markdown = markdown or not sys.stdout.isatty()
    table = Table(box=box.MARKDOWN if markdown else box.SIMPLE_HEAD)
    texts = ("model", "clip", "engine", "device", "counted by", "stage", "encoder", "decoder")
    for title in rows[0] if rows else ():
        table.add_column(title, justify="left" if title in texts else "right")  # figures
    for row in rows:
        table.add_row(*map(Text, row.values()))
    if markdown:  # as wide as it must be, whatever reads it
        stream = io.StringIO()
        Console(file=stream, width=10_000).print(table)
        print(stream.getvalue().strip())
    else:
        Console(highlight=False).print(table)


def number(value: float | None, form: str, factor: float = 1.0) -> str:
    """Return a figure for people, or a dash where there is none."""
    return "–" if value is None else format(value * factor, form)


def print_benchmark(record: Mapping[str, Any], markdown: bool) -> None:
    """Print the machine, the settings and the tables of a record, then why engines failed.

    Whole runs in float32 come first, those of other types after them: the latter have less to read
    and to multiply, and may write other words.
    """
    settings, limits = record["settings"], record["limits"]
    markdown = markdown or not sys.stdout.isatty()
    if markdown:
        typer.echo(f"# Benchmark of {record['started'][:10]}\n")
    typer.echo(Machine(**record["machine"]).describe())
    if limits:
        shown = (
            ("plain read", limits["read_bytes_per_second"], "GB/s"),
            ("multiply-add loop", limits["multiply_add_flops"], "GFLOP/s in float32"),
        )
        parts = (
            f"{name} {rate['median'] / 1e9:.0f} {unit} "
            f"({rate['min'] / 1e9:.0f} to {rate['max'] / 1e9:.0f})"
            for name, rate, unit in shown
        )
        typer.echo(" · ".join(parts))
    runs = f"Medians of {settings['repeats']} runs" if settings["repeats"] > 1 else "One run"
    typer.echo(
        f"{runs} of each engine, in turns, after a warm-up; temperature 0; compared with "
        f"{settings['baseline']}."
        + (" It was interrupted: what is missing was not run." if record["interrupted"] else "")
    )
    exact = [each for each in record["results"] if each.get("dtype", "float32") == "float32"]
    other = [each for each in record["results"] if each not in exact]
    for title, columns, results in (
        ("Whole runs in float32", RUNS, exact),
        ("Whole runs in other types", RUNS, other),
        ("Parts of a run", PARTS, record["results"]),
    ):
        if results:
            typer.echo(f"\n{'## ' if markdown else ''}{title}\n")
            print_table([_list_figures(each, columns) for each in results], markdown)
    errors = (f"{r['engine']} failed: {r['error']}" for r in record["results"] if r["error"])
    for sentence in dict.fromkeys(errors):
        typer.echo(sentence)


def _list_figures(
    result: Mapping[str, Any], columns: Sequence[tuple[str, str, str, float]]
) -> dict[str, str]:
    """Return the cells of a benchmark's result by title."""
    stages = result.get("seconds", {})
    figures = {stage: seconds["median"] for stage, seconds in stages.items()}
    figures |= {f"total {end}": stages.get("total", {}).get(end) for end in ("min", "max")}
    figures |= result
    row = {name: str(result[name]) for name in ("model", "clip", "beam", "engine")}
    row["device"] = f"{result.get('device', '–')} {result.get('dtype', '')}".strip()
    same: bool | None = result.get("equal_tokens")
    row["same tokens"] = "–" if same is None else "yes" if same else "no"
    return row | {
        title: number(figures.get(name), form, factor) for title, name, form, factor in columns
    }


def print_evaluation(summaries: Sequence[Mapping[str, Any]], as_json: bool, markdown: bool) -> None:
    """Print a row, or a line of JSON, for each summary of `evaluate`."""
    if as_json:
        for summary in summaries:
            print_json(summary)
        return
    rows = [
        {
            "engine": each["engine"],
            "model": each["model"],
            "clips": str(each["clips"]),
            "failed": str(each["failed"]),
            "counted by": each["unit"],
            "error rate": number(each["error_rate"], ".2%"),
            "95 % interval": " to ".join(number(end, ".2%") for end in each["interval"] or [None]),
            "errors": f"{each['errors']} of {each['expected']}",
            "real-time factor": number(each["real_time_factor"], ".3f"),
        }
        for each in summaries
    ]
    print_table(rows, markdown)


def print_layers(result: LayerComparison, as_json: bool) -> None:
    """Print a table for each half but the baseline, and a verdict below it; or all as JSON."""
    if as_json:
        return print_json(result.as_dict())
    baseline, than = result.baseline, f"{result.factor:g} times PyTorch's float32 error"
    typer.echo(f"{result.model}, {result.clip}, the window at {result.start:g} s")
    if result.text:
        typer.echo(f"every decoder reads PyTorch's features and the tokens of: {result.text}")
    typer.echo(f"baseline: {baseline.label} ({baseline.device}); errors are against float64")
    for encoder in result.others:
        rows = []
        for stage in result.stages:
            figures, near = stage.statistics[encoder.name], stage.similarity[encoder.name]
            row = {"stage": stage.name}
            for name in ("mean", "std", "minimum", "maximum"):
                row[name] = number(getattr(figures, name, None), ".5f")
            row["error"] = f"{stage.errors[encoder.name]:.1e}"
            row["bound"] = f"{result.bound(stage):.1e}"
            row["cosine"] = number(near.cosine if near else None, ".9f")
            worst = stage.worst[encoder.name]
            row["max |Δ|"] = number(worst.gap if worst else None, ".1e")
            row["in"] = str(worst or "")
            rows.append(row)
        typer.echo(f"\n{encoder.label} ({encoder.device})")
        print_table(rows)
        first = result.first_past(encoder.name)
        typer.echo(
            f"more than {than} from {first} on" if first else f"every stage is within {than}"
        )


def print_fault(result: FaultResult) -> None:
    """Print where a fault first shows, the features at the end, and both texts."""
    last, name = result.layers.stages[-1], result.faulty_encoder.name
    figures, similarity = last.statistics[name], last.similarity[name]
    typer.echo(f"{result.fault.key}: {result.fault.title}")
    typer.echo(f"  first shows  {result.first_stage or 'nowhere in the encoder'}")
    if figures is not None and similarity is not None:
        typer.echo(
            f"  features     mean {figures.mean:.4f}, std {figures.std:.4f}, cosine "
            f"{similarity.cosine:.6f}, relative error {last.errors[name]:.1e}"
        )
    typer.echo(f"  right        {result.right.text.strip()}")
    typer.echo(f"  with fault   {result.faulty.text.strip() if result.faulty else result.error}")


def print_divergence(result: Divergence) -> None:
    """Print where two engines part, then the step in every pairing of their halves."""
    typer.echo(f"{result.clip}, {result.model}, {' and '.join(result.engines)}")
    for sentence in result.sentences():
        typer.echo(sentence)
    judges = [result.judge] if result.judge else result.judges
    if result.parts != "token" or not judges:
        return
    typer.echo(f"window {result.window + 1}, token {result.position + 1}, after: {result.before}")
    rows = []
    for each in (*result.pairings, *judges):
        row = {"encoder": each.encoder, "decoder": each.decoder}
        for candidate, logprob in zip(result.candidates, each.logprobs, strict=True):
            row[f"log p of {candidate.text!r} ({candidate.token})"] = number(logprob, ".4f")
        row["margin"] = "–" if each.margin is None else format_margin(each.margin)
        rows.append(row)
    print_table(rows)
    if result.encoder_moves is not None and result.decoder_moves is not None:
        typer.echo(
            f"of the margins' difference the encoder makes {result.encoder_moves:.4f}, the decoder "
            f"{result.decoder_moves:.4f}"
        )
    if result.judge_best:
        best = ", ".join(f"{text!r} {logprob:.3f}" for text, logprob in result.judge_best)
        typer.echo(f"likeliest by float64: {best}")
