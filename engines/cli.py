"""Every command for a terminal: `python -m engines.cli COMMAND`, `--help` for the list.

Exit status: 1 after an error, which is one sentence on standard error, 2 for wrong arguments, 130
after Ctrl-C; a command's help says what else it means. With `LOG_FORMAT=json` an error is a line of
the log as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from engines import command_options as args
from engines import logs, printing, registry, worker
from engines.analysis import faults, records
from engines.audio import find_clip, load_clip
from engines.base import EngineError, Options, explain
from engines.benchmark import clip_list, evaluation, evaluation_lines, machine, speed
from engines.models import DEFAULT_MODEL, QUICK_MODEL
from engines.options import WhisperOptions

TO_STDOUT = Path("-")

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


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
                raise typer.Exit(INTERRUPTED) from None
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


@app.command(context_settings=args.WHISPER_SPELLING)
@args.with_whisper_options
def transcribe(
    clips: args.ClipNames,
    engine: Annotated[str, typer.Option("--engine", help="see `engines`")] = registry.BASELINE,
    model: args.Model = DEFAULT_MODEL,
    dtype: args.DtypeOption = None,
    language: args.Language = None,
    beam_size: args.BeamSize = None,
    word_timestamps: args.WordTimestamps = False,
    track: args.Track = 0,
    channel: args.Channel = "",
    as_json: args.AsJson = False,
    output_dir: args.OutputDir = None,
    output_format: args.OutputFormat = None,
    max_line_width: args.LineWidth = None,
    max_line_count: args.LineCount = None,
    *,
    whisper: WhisperOptions,
) -> None:
    """Print one engine's transcript of each clip: a line for each segment, or one JSON object.

    A clip that fails leaves the others; exit status 1 then, and where only the first part of one
    could be read, after its words.
    """
    options = args.make_options(whisper, language, beam_size, word_timestamps)
    files = args.TranscriptFiles(output_dir, output_format, max_line_width, max_line_count)
    paths, failed = args.list_clips(clips), False
    ready = worker.get_engine(engine, model, dtype)
    for path in paths:
        try:
            sound = args.open_clip(str(path), track, channel)
            prepared = ready.prepare(printing.PrintProgress())  # the first time only
            if len(paths) > 1 and not as_json:
                printing.print_line(f"{sound.name}:")
            with printing.PrintSegments(sound, quiet=as_json) as listener:
                transcript = ready.transcribe(sound, options, listener)
            if as_json:
                printing.print_json(printing.transcript_json(transcript, prepared, sound))
            files.write(path, sound, transcript, track)
            args.check_complete(sound)
        except EngineError as error:  # noqa: PERF203
            if len(paths) == 1:
                raise
            typer.echo(f"error: {error}", err=True)
            failed = True
    raise typer.Exit(int(failed))


@app.command(context_settings=args.WHISPER_SPELLING)
@args.with_whisper_options
def compare(
    clip: args.ClipName = "jfk",
    engines: args.Engines = None,
    model: args.Model = DEFAULT_MODEL,
    language: args.Language = None,
    beam_size: args.BeamSize = None,
    baseline: args.Baseline = None,
    strict: Annotated[bool, typer.Option("--strict", help="exit status 2 for other words")] = False,
    track: args.Track = 0,
    channel: args.Channel = "",
    *,
    whisper: WhisperOptions,
) -> None:
    """Print what every engine wrote, one after another, differences marked.

    Words that only the baseline has are [-marked-], words that only the engine has {+marked+}.
    Where the words really spoken are known (CLIP.txt beside the clip), the baseline is compared
    with those. Exit status 1 when an engine failed, or only the clip's first part could be read.
    """
    options = args.make_options(whisper, language, beam_size)
    keys, path = args.pick_engines(engines, baseline), find_clip(clip)
    sound, beside = args.open_clip(clip, track, channel), path.with_suffix(".txt")
    spoken = " ".join(clip_list.read_text(beside).split()) if beside.is_file() else None
    typer.echo(f"{sound.name}, {sound.seconds:.1f} s, {model}")
    if spoken:
        printing.print_text("the words spoken", spoken)
    written: dict[str, str] = {}
    for key in keys:
        try:
            transcript = worker.get_engine(key, model).transcribe(sound, options)
            transcript = replace(transcript, engine=key)
        except Exception as error:  # one engine's must not hide the others' words
            printing.print_text(key, f"failed: {explain(error)}", "red")
            continue
        than, expected = next(iter(written.items()), ("the words spoken", spoken))
        printing.print_differences(transcript, spoken, than, expected)
        written[key] = transcript.text
    if len(written) < len(keys):
        raise typer.Exit(1)
    args.check_complete(sound)
    if strict and len({tuple(text.split()) for text in written.values()}) > 1:
        raise typer.Exit(2)


@app.command("engines")
def list_engines(as_json: args.AsJson = False) -> None:
    """List the engines, and why one is not available on this machine."""
    for status in registry.statuses():
        if as_json:
            printing.print_json(status.as_dict())
            continue
        state = "available" if status.available else f"not available: {status.reason}"
        halves = f"encoder {status.encoder}, decoder {status.decoder}"
        typer.echo(f"{status.key:<21} {status.label:<20} {halves:<44} {state}")


@app.command()
def doctor(
    model: args.Model = QUICK_MODEL,
    gpu: Annotated[bool, typer.Option("--gpu", help="only what there is of a GPU")] = False,
) -> None:
    """Say what is here and whether it works: packages, GPU, MAX's compiler, equal encoders.

    Exit status 1 where MAX can't compile, run or agree with PyTorch; with --gpu where PyTorch or
    MAX has no GPU that computes rightly.
    """
    from engines import doctor

    raise typer.Exit(int(not (doctor.check_gpus() if gpu else doctor.check_machine(model))))


@app.command()
def layers(
    baseline: Annotated[str, typer.Argument(help="ENGINE or ENGINE:TYPE")] = registry.BASELINE,
    engines: args.OtherEngines = None,
    clip: args.ClipOption = "jfk",
    start: args.WindowStart = 0.0,
    part: args.Part = "encoder",
    model: args.Model = DEFAULT_MODEL,
    language: args.Language = None,
    as_json: args.AsJson = False,
) -> None:
    """Compare encoders or decoders after every stage. Exit status 1 past the bound."""
    key = baseline.split(":")[0]
    others = [each.name for each in records.candidates(part) if each.name.split(":")[0] != key]
    inspection = records.Inspection(part, (baseline, *(engines or others)), model, start, language)
    compared = records.compare_halves(inspection, load_clip(find_clip(clip)))
    printing.print_layers(compared, as_json)
    raise typer.Exit(int(any(compared.first_past(half.name) for half in compared.others)))


@app.command()
def why(
    clip: args.ClipName,
    first: args.EngineName,
    second: args.EngineName,
    model: args.Model = DEFAULT_MODEL,
    margin: Annotated[float, typer.Option("--margin", min=0, help="a call so close passes")] = 0.0,
    language: args.Language = None,
    beam_size: args.BeamSize = None,
) -> None:
    """Say where two engines' tokens part at temperature 0, why, and who is right by float64.

    Exit status 1 where they differ, unless float64 finds both tokens as likely within the margin.
    """
    from engines.analysis.replay import explain_clip

    options = Options(language, beam_size, temperatures=(0.0,))
    divergence = explain_clip((first, second), model, load_clip(find_clip(clip)), options)
    printing.print_divergence(divergence)
    raise typer.Exit(int(divergence.is_past(margin)))


@app.command("faults")
def run_faults(
    names: Annotated[list[str] | None, typer.Argument(help="all when left out")] = None,
    clip: args.ClipOption = "jfk",
    model: args.Model = DEFAULT_MODEL,
    language: args.Language = None,
) -> None:
    """Put faults into an encoder; say where each first shows and what text comes out."""
    chosen = [faults.get_fault(name) for name in names or ()] or faults.FAULTS
    sound = load_clip(find_clip(clip))
    for fault in chosen:
        printing.print_fault(faults.run_fault(fault, model, sound, language))


@app.command(context_settings=args.WHISPER_SPELLING)
@args.with_whisper_options
def benchmark(
    engines: args.Engines = None,
    baseline: args.Baseline = None,
    models: Annotated[str, typer.Option("--models", help="with commas between")] = DEFAULT_MODEL,
    clips: Annotated[str, typer.Option("--clips", help="samples, or paths")] = "jfk",
    beams: Annotated[str, typer.Option("--beams", help="beam sizes; 1 is greedy")] = "1",
    repeats: Annotated[int, typer.Option("--repeats", min=1)] = 5,
    warm_ups: Annotated[int, typer.Option("--warm-ups", min=0, help="runs not counted")] = 1,
    threads: args.Threads = None,
    dtype: args.DtypeOption = None,
    language: args.Language = None,
    word_timestamps: args.WordTimestamps = False,
    record: args.RecordPath = None,
    show: args.ShownRecord = None,
    markdown: args.Markdown = False,
    *,
    whisper: WhisperOptions = speed.NO_FALLBACK,
) -> None:
    """Time engines that take turns: medians of whole runs, as tables or as a record in JSON.

    Temperature 0 alone unless told otherwise: trying again would be more work for one engine only.
    Ctrl-C prints, and leaves, what was finished. Exit status 1 when an engine failed.
    """
    if show is not None:
        try:
            printing.print_benchmark(json.loads(show.read_text(encoding="utf-8")), markdown)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(f"{show} holds no record of a benchmark: {error}.") from error
        return
    plan = speed.Plan(
        engines=args.pick_engines(engines, baseline),
        models=args.split_names(models),
        clips=args.split_names(clips),
        beams=(sizes := args.read_beams(beams)),
        repeats=repeats,
        warm_ups=warm_ups,
        dtype=dtype,
        named_baseline=baseline,
        options=args.make_options(whisper, language, min(sizes), word_timestamps),
    )
    args.check_writable(saved := record if record != TO_STDOUT else None)
    machine.limit_threads(threads)
    with Console(stderr=True).status("") as status:
        measured = speed.run(plan, saved, status.update)
    if measured["interrupted"]:
        typer.echo("Interrupted: what was finished follows.", err=True)
    if record == TO_STDOUT:
        printing.print_json(measured)
    else:
        printing.print_benchmark(measured, markdown)
    failed = any(result["error"] for result in measured["results"])
    raise typer.Exit(INTERRUPTED if measured["interrupted"] else int(failed))


@app.command(context_settings=args.WHISPER_SPELLING)
@args.with_whisper_options
def evaluate(
    source: args.ClipSource,
    engines: args.Engines = None,
    models: Annotated[str, typer.Option("--models", "--model")] = DEFAULT_MODEL,
    language: args.Language = None,
    beam_size: args.BeamSize = None,
    word_timestamps: args.WordTimestamps = False,
    out: args.LinesPath = Path("build/evaluation.jsonl"),
    threads: args.Threads = None,
    ray: args.OnRay = False,
    address: args.RayAddress = "",
    workers: args.Workers = 1,
    batch: args.Batch = 1,
    as_json: args.AsJson = False,
    markdown: args.Markdown = False,
    *,
    whisper: WhisperOptions,
) -> None:
    """Error rates and real-time factors over clips with their words beside them (CLIP.txt).

    A manifest has them itself: JSON lines (.jsonl), CSV, or TSV without quotes, with a clip's path
    under audio, audio_filepath, file_name, path or file, and its words under text, reference,
    sentence, transcription or transcript. The same command goes on where the last one ended, with
    clips that have no text yet or failed. Exit status 1 when a clip failed.
    """
    where = address or ("local" if ray else None)
    if where:
        threads, batch = threads or max(1, len(machine.list_cores()) // workers), 1
    else:
        workers, threads = 1, machine.limit_threads(threads)
    options = args.make_options(whisper, language, beam_size, word_timestamps)
    lanes = [
        (engine, model)
        for model in args.split_names(models)
        for engine in args.pick_engines(engines)
    ]
    listed = clip_list.find_clips(source)
    tasks = evaluation_lines.make_tasks(lanes, listed, options, threads, workers, batch)
    args.check_writable(out)
    with Console(stderr=True).status("") as status:
        summaries, interrupted = evaluation.run(tasks, out, where, status.update)
    if interrupted:
        typer.echo("Interrupted: the same command goes on from here.", err=True)
    printing.print_evaluation(summaries, as_json, markdown)
    failed = any(summary["failed"] for summary in summaries)
    raise typer.Exit(INTERRUPTED if interrupted else int(failed))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; characters that the terminal lacks are escaped.

    SIGTERM keeps its default: the system ends the program, also while native code holds Python's
    lock, and the engines' processes end with it (`engines.process`).
    """
    printing.escape_unencodable()
    app(arguments, prog_name="python -m engines.cli")


if __name__ == "__main__":
    main()
