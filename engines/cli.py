"""Every command for a terminal: `python -m engines.cli COMMAND`, `--help` for the list.

Exit status: 1 after an error, which is one sentence on standard error, 2 for wrong arguments, 130
after Ctrl-C; a command's help says what else it means. With `LOG_FORMAT=json` an error is a line of
the log as well.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from engines import logs, registry, worker
from engines.audio import load_clip
from engines.base import (
    SILENT,
    EngineError,
    Listener,
    Options,
    PrepareSeconds,
    Progress,
    Segment,
    Transcript,
)
from engines.registry import DEFAULT_MODEL, QUICK_MODEL


class Commands(TyperGroup):
    """The group of commands: what an error or an interrupt means is the same for all."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command in a run of its own, and end its engines' processes with it."""
        logs.set_up()
        with logs.in_run(logs.new_run_id()):
            try:
                return super().invoke(ctx)
            except EngineError as error:
                if logs.writes_json():
                    logs.logger().error("failed", command=ctx.invoked_subcommand, error=str(error))
                typer.echo(f"error: {error}", err=True)
                raise typer.Exit(1) from error
            except KeyboardInterrupt:
                typer.echo("Interrupted.", err=True)
                raise typer.Exit(130) from None
            finally:
                worker.close_engines()


app = typer.Typer(
    cls=Commands,
    help="One clip or many through Whisper's engines, and what there is to know about them.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Clip = Annotated[str, typer.Argument(help="any audio file, or the name of a sample")]
Model = Annotated[str, typer.Option("--model", help="an official name, or a path")]
Engines = Annotated[
    str | None, typer.Option("--engines", help="with commas between; all of this machine if not")
]
Language = Annotated[
    str | None, typer.Option("--language", help="a code such as en; detected when left out")
]
BeamSize = Annotated[int | None, typer.Option("--beam-size", help="greedy when left out")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="of every engine; a core's one if not")
]
DtypeOption = Annotated[Literal["float32", "float16", "bfloat16"], typer.Option("--dtype")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Markdown = Annotated[bool, typer.Option("--markdown", help="print tables as Markdown")]


def split_names(text: str | None) -> tuple[str, ...]:
    """Return the names between commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def pick_engines(text: str | None) -> tuple[str, ...]:
    """Return the engines that were named, else all of this machine, the baseline first."""
    keys = split_names(text) or registry.available()
    for key in keys:
        registry.row(key)
    return tuple(sorted(keys, key=lambda key: key != registry.BASELINE))


@app.command()
def transcribe(
    clip: Clip,
    engine: Annotated[str, typer.Option("--engine", help="see `engines`")] = registry.BASELINE,
    model: Model = DEFAULT_MODEL,
    dtype: DtypeOption = "float32",
    language: Language = None,
    beam_size: BeamSize = None,
    word_timestamps: Annotated[bool, typer.Option("--word-timestamps")] = False,
    as_json: AsJson = False,
) -> None:
    """Print one engine's transcript of one clip: a line for each segment, or one JSON object."""
    from engines.benchmark.speed import find_clip

    sound = load_clip(find_clip(clip))
    ready = registry.get(engine, model, dtype)
    prepared = ready.prepare(PrintProgress())
    options = Options(language=language, beam_size=beam_size, word_timestamps=word_timestamps)
    transcript = ready.transcribe(sound, options, SILENT if as_json else PrintSegments())
    if as_json:
        typer.echo(json.dumps(transcript_json(transcript, prepared), ensure_ascii=False))


class PrintProgress(Listener):
    """Prints each stage of getting ready once, and a download's megabytes on a terminal."""

    def __init__(self) -> None:
        self._stage = ""

    def progress(self, progress: Progress) -> None:
        """Print the stage when it begins."""
        text = progress.note or progress.stage
        if progress.stage == "downloading" and progress.total and sys.stderr.isatty():
            size = f"{progress.done / 1e6:.0f} of {progress.total / 1e6:.0f} MB"
            typer.echo(f"\r{text} … {size}", err=True, nl=progress.done >= progress.total)
        elif text != self._stage:
            typer.echo(f"{text} …", err=True)
        self._stage = text


class PrintSegments(Listener):
    """Prints each segment when it is final."""

    def segment(self, segment: Segment) -> None:
        """Print a line with the segment's times in seconds, then its words' if they are timed."""
        typer.echo(f"[{segment.start:7.2f} → {segment.end:7.2f}] {segment.text.strip()}")
        for word in segment.words or ():
            typer.echo(f"    {word.start:7.2f} → {word.end:7.2f}  {word.text.strip()}")


FIELDS = ("engine", "model", "device", "dtype", "language", "language_probability", "text")


def transcript_json(transcript: Transcript, prepared: PrepareSeconds) -> dict[str, Any]:
    """Return the documented JSON object; all times in seconds."""
    return {
        **{name: getattr(transcript, name) for name in FIELDS},
        "tokens": list(transcript.tokens),
        "segments": [_segment_json(segment) for segment in transcript.segments],
        "seconds": {"prepare": prepared.total, **transcript.seconds.as_dict()},
        "audio_seconds": transcript.audio_seconds,
    }


def _segment_json(segment: Segment) -> dict[str, Any]:
    found = {name: getattr(segment, name) for name in ("start", "end", "text", "tokens")}
    if segment.words is None:
        return found
    return {**found, "words": [vars(word) for word in segment.words]}


@app.command()
def compare(
    clip: Clip = "jfk",
    engines: Engines = None,
    model: Model = DEFAULT_MODEL,
    language: Language = None,
    beam_size: BeamSize = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="the words really spoken")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="exit status 2 for other words")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what every engine wrote, one after another, differences marked.

    Words that only the baseline has are [-marked-], words that only the engine has {+marked+}.
    Where the words really spoken are known (CLIP.txt beside the clip), the baseline is compared
    with those. Exit status 1 when an engine failed. With --json each engine is a line.
    """
    from engines.commands.comparison import compare_engines

    options = Options(language=language, beam_size=beam_size)
    status = compare_engines(
        clip, pick_engines(engines), model, options, reference, strict, as_json
    )
    raise typer.Exit(status)


@app.command("engines")
def list_engines(as_json: AsJson = False) -> None:
    """List the engines, and why one is not available on this machine."""
    for status in registry.statuses():
        if as_json:
            typer.echo(json.dumps({**vars(status), "available": status.available}))
            continue
        state = "available" if status.available else f"not available: {status.reason}"
        halves = f"encoder {status.encoder}, decoder {status.decoder}"
        typer.echo(f"{status.key:<12}{status.label:<14}{halves:<42}{state}")


@app.command()
def doctor(
    model: Model = QUICK_MODEL,
    gpu: Annotated[bool, typer.Option("--gpu", help="only what there is of a GPU")] = False,
) -> None:
    """Say what is here and whether it works: packages, GPU, MAX's compiler, equal encoders.

    Exit status 1 where MAX can't compile, run or agree with PyTorch; with --gpu where PyTorch or
    MAX has no GPU that computes rightly.
    """
    from engines.commands import checks

    raise typer.Exit(int(not (checks.check_gpus() if gpu else checks.check_machine(model))))


@app.command()
def layers(
    baseline: Annotated[str, typer.Argument(help="ENGINE or ENGINE:TYPE")] = registry.BASELINE,
    engines: Annotated[
        list[str] | None,
        typer.Argument(help="those to compare with it; the other candidates if none"),
    ] = None,
    clip: Annotated[str, typer.Option("--clip", help="any audio file, or a sample")] = "jfk",
    start: Annotated[float, typer.Option("--start", help="seconds to the window")] = 0.0,
    model: Model = DEFAULT_MODEL,
    factor: Annotated[
        float | None, typer.Option("--factor", help="of PyTorch's float32 error, both to float64")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare encoders after every stage. Exit status 1 past the bound."""
    from engines.commands import analysis

    names = (baseline, *(engines or analysis.list_others(baseline)))
    raise typer.Exit(analysis.show_layers(names, model, clip, start, factor, as_json))


@app.command()
def faults(
    names: Annotated[list[str] | None, typer.Argument(help="all when left out")] = None,
    clip: Annotated[str, typer.Option("--clip", help="any audio file, or a sample")] = "jfk",
    model: Model = DEFAULT_MODEL,
    language: Language = None,
    as_json: AsJson = False,
) -> None:
    """Put faults into an encoder; say where each first shows and what text comes out."""
    from engines.commands import analysis

    analysis.show_faults(names or (), model, clip, language, as_json)


@app.command()
def benchmark(
    engines: Engines = None,
    models: Annotated[str, typer.Option("--models", help="with commas between")] = DEFAULT_MODEL,
    clips: Annotated[str, typer.Option("--clips", help="samples, or paths")] = "jfk",
    beams: Annotated[str, typer.Option("--beams", help="beam sizes; 1 is greedy")] = "1",
    repeats: Annotated[int, typer.Option("--repeats", min=1)] = 5,
    warm_ups: Annotated[int, typer.Option("--warm-ups", min=0, help="runs not counted")] = 1,
    threads: Threads = None,
    dtype: DtypeOption = "float32",
    record: Annotated[
        Path | None, typer.Option("--json", help="keep the record here; - prints it instead")
    ] = None,
    show: Annotated[
        Path | None, typer.Option("--show", help="print a record's tables; nothing is run")
    ] = None,
    markdown: Markdown = False,
) -> None:
    """Time engines that take turns: medians of whole runs, as tables or as a record in JSON.

    Ctrl-C prints, and leaves, what was finished. Exit status 1 when an engine failed.
    """
    from engines.benchmark import speed
    from engines.commands import timing

    if show is not None:
        timing.show_record(show, markdown)
        return
    if not all(beam.isdecimal() and int(beam) for beam in split_names(beams)):
        raise typer.BadParameter(f"{beams!r} are not numbers from 1 up", param_hint="--beams")
    plan = speed.Plan(
        engines=pick_engines(engines),
        models=split_names(models),
        clips=split_names(clips),
        beams=tuple(int(beam) for beam in split_names(beams)),
        repeats=repeats,
        warm_ups=warm_ups,
        dtype=dtype,
    )
    raise typer.Exit(timing.run_benchmark(plan, threads, record, markdown))


@app.command()
def evaluate(
    source: Annotated[Path, typer.Argument(help="a folder, or a file with a path a line")],
    engines: Engines = None,
    models: Annotated[str, typer.Option("--models", "--model")] = DEFAULT_MODEL,
    language: Language = None,
    beam_size: BeamSize = None,
    out: Annotated[Path, typer.Option("--out", help="a line of JSON for each clip")] = Path(
        "build/evaluation.jsonl"
    ),
    threads: Threads = None,
    ray: Annotated[bool, typer.Option("--ray", help="on Ray, started here unless told")] = False,
    address: Annotated[str, typer.Option("--address", help="a cluster's, ray://host:10001")] = "",
    workers: Annotated[int, typer.Option("--workers", min=1, help="at the same time, on Ray")] = 1,
    as_json: AsJson = False,
    markdown: Markdown = False,
) -> None:
    """Error rates and real-time factors over clips with their words beside them (CLIP.txt).

    The same command goes on where the last one ended: clips that have a text are left alone, those
    that failed are tried again. Exit status 1 when a clip failed.
    """
    from engines.benchmark import machine
    from engines.benchmark.evaluation import Task, find_clips
    from engines.commands import timing

    on_ray = ray or bool(address)
    if on_ray:
        threads = threads or max(1, machine.count_cores() // workers)
    else:
        workers, threads = 1, machine.limit_threads(threads)
    options = Options(language=language, beam_size=beam_size)
    tasks = [
        Task(engine, model, name, path, reference, options, threads, workers)
        for model in split_names(models)
        for engine in pick_engines(engines)
        for name, path, reference in find_clips(source)
    ]
    where = (address or "local") if on_ray else None
    raise typer.Exit(timing.run_evaluation(tasks, out, where, as_json, markdown))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; SIGTERM ends it, and its engines' processes, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    app(arguments, prog_name="python -m engines.cli")


if __name__ == "__main__":
    main()
