"""What commands share: types of their arguments, Whisper's options as theirs, and clips."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from engines import registry
from engines.analysis.records import HalfName
from engines.audio import find_clip, load_clip
from engines.base import AudioError, Clip, Dtype, EngineError, Options, Transcript
from engines.clip_clock import set_clock
from engines.clip_source import LEFT, MOST_CHANNELS, RIGHT
from engines.options import OPTIONS, WhisperOptions, find_conflict, show, to_number
from engines.transcript_files import FORMATS, read_line_breaks, write_json, write_segments

ClipName = Annotated[str, typer.Argument(help="any audio file or film, or the name of a sample")]
EngineName = Annotated[str, typer.Argument(help="ENGINE, or ENGINE:TYPE@MODEL")]
ClipNames = Annotated[
    list[str],
    typer.Argument(help="audio files, films, names of samples, or folders with such files"),
]
ClipOption = Annotated[str, typer.Option("--clip", help="any audio file or film, or a sample")]
OtherEngines = Annotated[
    list[str] | None,
    typer.Argument(help="those to compare with it; the other candidates if none"),
]
WindowStart = Annotated[float, typer.Option("--start", help="seconds to the window")]
Part = Annotated[HalfName, typer.Option("--part", help="the half of the model")]
Model = Annotated[str, typer.Option("--model", help="an official name, or a path")]
Engines = Annotated[
    str | None,
    typer.Option(
        "--engines",
        help="with commas between; one may be ENGINE:TYPE@MODEL; all has the optional ones too; "
        "else those that run by default",
    ),
]
Baseline = Annotated[
    str | None, typer.Option("--baseline", help="the engine that the others are held against")
]
Language = Annotated[
    str | None, typer.Option("--language", help="a code such as en; detected when left out")
]
BeamSize = Annotated[int | None, typer.Option("--beam-size", help="greedy when left out")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="of every engine; a core's one if not")
]
Track = Annotated[
    int, typer.Option("--track", min=0, help="audio track, from 1; 0 as players choose it")
]
Channel = Annotated[
    str, typer.Option("--channel", help="left, right or a number from 1; all mixed when left out")
]
DtypeOption = Annotated[Dtype | None, typer.Option("--dtype", help="the engine's own unless given")]
OutputDir = Annotated[
    Path | None, typer.Option("--output-dir", "-o", help="write files of the transcripts here")
]
OutputFormat = Annotated[
    str | None,
    typer.Option("--output-format", "-f", help=f"{', '.join(FORMATS)} or all", metavar="FORMAT"),
]
LineWidth = Annotated[
    str | None,
    typer.Option("--max-line-width", help="characters in a line of subtitles", metavar="NUMBER"),
]
LineCount = Annotated[
    str | None, typer.Option("--max-line-count", help="lines in a cue", metavar="NUMBER")
]
WordTimestamps = Annotated[bool, typer.Option("--word-timestamps")]
ClipSource = Annotated[
    Path, typer.Argument(help="a folder, a list of files (a path a line) or a manifest")
]
LinesPath = Annotated[Path, typer.Option("--out", help="a line of JSON for each clip")]
OnRay = Annotated[bool, typer.Option("--ray", help="on Ray, started here unless told")]
RayAddress = Annotated[str, typer.Option("--address", help="a cluster's, ray://host:10001")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="at the same time, on Ray")]
Batch = Annotated[
    int, typer.Option("--batch", min=1, help="clips that max_full decodes together, here")
]
RecordPath = Annotated[
    Path | None, typer.Option("--json", help="keep the record here; - prints it instead")
]
ShownRecord = Annotated[
    Path | None, typer.Option("--show", help="print a record's tables; nothing is run")
]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Markdown = Annotated[bool, typer.Option("--markdown", help="print tables as Markdown")]

WHISPER_SPELLING = {"token_normalize_func": lambda name: name.replace("_", "-")}
"""A context in which options may be written as whisper's command has them, `--beam_size`."""

NOT_CLIPS = {
    *(".txt", ".srt", ".vtt", ".tsv", ".csv", ".json", ".jsonl", ".lrc", ".ass", ".md", ".html"),
    *(".pdf", ".xml", ".yaml", ".yml", ".log", ".py", ".ipynb", ".jpg", ".jpeg", ".png", ".npy"),
    *(".zip", ".gz", ".nfo", ".ini", ".toml"),
}
"""Endings of files that lie beside clips in a folder."""

FLAGS = {"temperatures": "--temperature"}
"""Options that have another name in whisper's own command."""

INCREMENT = "--temperature-increment-on-fallback"
TEMPERATURE_STEP = 0.2


def name_flag(name: str) -> str:
    """Return an option as it is spelled at a terminal."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def with_whisper_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each of Whisper's; it gets them as `whisper`, a
    `WhisperOptions`, whose default in its signature, if it has one, holds what isn't given."""
    signature = inspect.signature(command, eval_str=True)
    given_default = signature.parameters["whisper"].default
    usual = WhisperOptions() if given_default is inspect.Parameter.empty else given_default

    @functools.wraps(command)
    def run(*args: Any, **arguments: Any) -> None:
        texts = {name: arguments.pop(name) for name in OPTIONS}
        temperatures = read_temperatures(
            texts.pop("temperatures"), arguments.pop("temperature_increment")
        )
        whisper_options: dict[str, Any] = {"temperatures": temperatures} if temperatures else {}
        for name, text in texts.items():
            if text is not None:
                whisper_options[name] = read_option(name, text)
        command(*args, **arguments, whisper=replace(usual, **whisper_options))

    parameters = [each for each in signature.parameters.values() if each.name != "whisper"]
    kind = inspect.Parameter.KEYWORD_ONLY
    for name, annotation in list_annotations(usual).items():
        parameters.append(inspect.Parameter(name, kind, default=None, annotation=annotation))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def list_annotations(defaults: WhisperOptions) -> dict[str, Any]:
    """Return the type of each of Whisper's options for typer, by name."""
    annotations: dict[str, Any] = {}
    for name, row in OPTIONS.items():
        flag = name_flag(name)
        if row.kind == "flag":
            switch = typer.Option(f"{flag}/--no-{flag[2:]}", help=row.help, show_default=False)
            annotations[name] = Annotated[bool | None, switch]
            continue
        usual = f" [default: {row.write(getattr(defaults, name)) or 'nothing'}]"
        metavar = "|".join(row.values) or row.kind.upper()
        shown = typer.Option(flag, help=row.help + usual, metavar=metavar, show_default=False)
        annotations[name] = Annotated[str | None, shown]
        if name == "temperatures":
            step = typer.Option(INCREMENT, help=INCREMENT_HELP, metavar="NUMBER")
            annotations["temperature_increment"] = Annotated[str | None, step]
    return annotations


INCREMENT_HELP = (
    "steps from a single temperature up to 1; none for that one alone "
    f"[default: {TEMPERATURE_STEP}]"
)


def read_option(name: str, text: Any) -> Any:
    """Return an option's value; end the command, with a sentence, for a wrong one."""
    try:
        return OPTIONS[name].read(name, text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name_flag(name)) from None


def read_temperatures(text: str | None, increment: str | None) -> tuple[float, ...] | None:
    """Return the temperatures as whisper's command makes them: from a single one up to 1 in steps,
    several as they are. None where nothing was given."""
    if text is None and increment is None:
        return None
    temperatures: tuple[float, ...] = read_option("temperatures", text or "0")
    if len(temperatures) > 1:
        return temperatures
    step = TEMPERATURE_STEP if increment is None else to_number(increment)
    if isinstance(step, str) and step.lower() == "none":
        return temperatures
    if not isinstance(step, float) or not 0.05 <= step <= 1:
        sentence = f"{show(increment)} is no number from 0.05 to 1, nor none"
        raise typer.BadParameter(sentence, param_hint=INCREMENT)
    return tuple(round(float(each), 6) for each in np.arange(temperatures[0], 1.0 + 1e-6, step))


def open_clip(name: str, track: int, channel: str) -> Clip:
    """Read a clip; print its tracks, where there are several, and what is odd about it."""
    number = {"": 0, "left": LEFT, "right": RIGHT}.get(channel.lower())
    if number is None and not (channel.isdecimal() and 0 < int(channel) <= MOST_CHANNELS):
        sentence = f"{channel!r} is not left, right or a number from 1 to {MOST_CHANNELS}"
        raise typer.BadParameter(sentence, param_hint="--channel")
    clip = load_clip(
        find_clip(name), track=track, channel=int(channel) if number is None else number
    )
    source = clip.source
    if len(source.tracks) > 1:
        listed = ", ".join(each.describe() for each in source.tracks)
        typer.echo(f"Track {source.track} of {listed}; choose with --track.", err=True)
    for sentence in source.notes:
        typer.echo(f"note: {sentence}", err=True)
    return clip


def make_options(
    whisper: WhisperOptions, language: str | None, beam_size: int | None, words: bool = False
) -> Options:
    """Return the options of a run; end the command where they can't be followed together."""
    if conflict := find_conflict(whisper, beam_size, words):
        raise EngineError(conflict)
    return Options(language, beam_size, words, **whisper.values())


def list_clips(names: Sequence[str]) -> list[Path]:
    """Return the named files; of a folder, in order, those that may hold sound."""
    paths: list[Path] = []
    for name in names:
        path = find_clip(name)
        if not path.is_dir():
            paths.append(path)
            continue
        files = (each for each in sorted(path.iterdir()) if each.is_file())
        clips = [x for x in files if x.suffix.lower() not in NOT_CLIPS and x.name[0] != "."]
        if not clips:
            raise EngineError(f"The folder {name} has no clip.")
        paths += clips
    return list(dict.fromkeys(paths))


class TranscriptFiles:
    """Writes transcripts to files where `--output-dir` or `--output-format` is given.

    Raises `typer.BadParameter` for a wrong option, before anything runs.
    """

    def __init__(
        self, folder: Path | None, form: str | None, width: str | None, count: str | None
    ) -> None:
        if form is not None and form not in (*FORMATS, "all"):
            sentence = f"{show(form)} is none of {', '.join(FORMATS)} and all"
            raise typer.BadParameter(sentence, param_hint="--output-format")
        try:
            self._lines = read_line_breaks(width, count)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        self._endings = FORMATS if form in (None, "all") else (form,)
        self._folder = folder if folder or form is None else Path()
        self._written: set[str] = set()
        if self._folder is not None:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise EngineError(f"{folder} can't be made: {error.strerror}.") from error

    def write(self, path: Path, clip: Clip, transcript: Transcript, track: int) -> None:
        """Write a clip's files, named as the clip is and the track that was chosen; with the
        clip's ending where two are named alike."""
        if self._folder is None:
            return
        chosen = f".track-{track}" if track else ""
        name = (path.name if path.stem + chosen in self._written else path.stem) + chosen
        self._written.add(name)
        segments = [set_clock(each, clip.source) for each in transcript.segments]
        end = clip.source.file_time(clip.seconds, ends=True)
        for ending in self._endings:
            if ending == "json":
                text = write_json(transcript.text, transcript.language, segments)
            else:
                text = write_segments(segments, ending, end, self._lines)
            file = self._folder / f"{name}.{ending}"
            try:
                file.write_text(text, encoding="utf-8")
            except OSError as error:
                raise EngineError(f"{file} can't be written: {error.strerror}.") from error


def check_complete(clip: Clip) -> None:
    """Raise `AudioError`, after the words, for a file whose end could not be read."""
    if clip.source.broke_off:
        raise AudioError(clip.source.broke_off)


def check_writable(path: Path | None) -> None:
    """Make the file's folder; raise `EngineError` where it can't be written, before hours pass."""
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
        except OSError as error:
            raise EngineError(f"{path} can't be written: {error.strerror}.") from error


def split_names(text: str | None) -> tuple[str, ...]:
    """Return the names between commas, each once."""
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def read_beams(text: str) -> tuple[int, ...]:
    """Return the beam sizes between commas; end the command, with a sentence, for anything else."""
    names = split_names(text)
    if not names or not all(name.isdecimal() and int(name) for name in names):
        raise typer.BadParameter(f"{text!r} are not numbers from 1 up", param_hint="--beams")
    return tuple(map(int, names))


def pick_engines(text: str | None, baseline: str | None = None) -> tuple[str, ...]:
    """Return the engines that were named, else those that run by default, the baseline first."""
    lanes = registry.available(optional=True) if text == "all" else split_names(text)
    keys = lanes or registry.available()
    for key in keys:
        registry.read_lane(key)
    if baseline and baseline not in keys:
        raise EngineError(f"The baseline {baseline} is none of {', '.join(keys)}.")
    return tuple(sorted(keys, key=lambda key: key != (baseline or registry.BASELINE)))
