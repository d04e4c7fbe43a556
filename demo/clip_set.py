"""Many clips: what a visitor's files hold, and the results of engines on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradio_client.utils import strip_invalid_filename_characters

from demo import uploads
from demo.snapshot import Lane
from engines.base import EngineError
from engines.benchmark import evaluation_lines
from engines.benchmark.clip_list import MANIFESTS, ListedClip, read_list, read_text
from engines.benchmark.evaluation_lines import Line
from engines.metrics import name_count

MOST_CLIPS = 200
MOST = 1e9
"""Above any figure of a line."""

NO_CLIPS = "There are no clips yet: drop some here, or take the samples."


@dataclass(frozen=True)
class ClipSet:
    """What a visitor's files hold: clips with their words, lines of an earlier run, and sentences
    about files that are neither."""

    clips: Sequence[ListedClip] = ()
    lines: Sequence[Line] = ()
    notes: Sequence[str] = ()

    def describe(self) -> str:
        """Say what there is, in a sentence or two."""
        if not self.clips:
            return NO_CLIPS
        known = sum(clip.reference is not None for clip in self.clips)
        words = "all with their words" if known == len(self.clips) else f"{known} with their words"
        done = f", and {name_count(len(self.lines), 'line')} of an earlier run"
        first = f"{name_count(len(self.clips), 'clip')}, {words}{done if self.lines else ''}."
        return " ".join([first, *self.notes])


def read_set(names: Sequence[str], samples: Path) -> ClipSet:
    """Sort a visitor's files by what they are; raise `EngineError` with a sentence.

    `NAME.txt` holds the words of the clip `NAME`; a manifest goes before it. Of a manifest's paths
    the files' names count.
    """
    paths = sorted(map(Path, names), key=lambda path: path.name)
    if any(not (uploads.is_upload(str(x)) or x.resolve().parent == samples) for x in paths):
        raise EngineError("The clips must be files that were uploaded here.")
    texts = {path.stem: path for path in paths if path.suffix.lower() == ".txt"}
    tables = [path for path in paths if path.suffix.lower() in MANIFESTS]
    files = [path for path in paths if path not in tables and path.suffix.lower() != ".txt"]
    if len(files) > MOST_CLIPS:
        raise EngineError(f"{len(files)} clips are too many at once: {MOST_CLIPS} are the most.")
    lines, spoken = read_tables(tables)
    stems = {path.stem for path in files}
    words = {stem: read_text(path).strip() for stem, path in texts.items() if stem in stems}
    clips: dict[str, ListedClip] = {}
    for path in files:
        name, number = path.name, 1
        while name in clips:  # two folders' files of the same name
            number += 1
            name = f"{path.stem} ({number}){path.suffix}"
        clips[name] = ListedClip(name, path, spoken.get(path.name, words.get(path.stem)))
    notes = []
    if missing := spoken.keys() - {path.name for path in files}:
        notes.append(f"{name_count(len(missing), 'clip')} of the manifest are not among the files.")
    if strange := texts.keys() - stems:
        notes.append(f"{name_count(len(strange), 'text')} belong to no clip of that name.")
    return ClipSet(tuple(clips.values()), lines, notes)


def read_tables(paths: Sequence[Path]) -> tuple[list[Line], dict[str, str]]:
    """Return the lines of earlier runs, and the words in manifests by the names of their files."""
    lines: list[Line] = []
    spoken: dict[str, str] = {}
    for path in paths:
        try:
            parsed, _ = evaluation_lines.parse_lines(read_text(path).strip().encode() + b"\n")
            lines += filter(is_whole, parsed)
            continue
        except ValueError:
            entries = read_list(path)
        for audio, text in entries:
            name = audio.replace("\\", "/").rpartition("/")[2]
            spoken |= {strip_invalid_filename_characters(name): text.strip()} if text else {}
    return lines, spoken


def is_whole(line: Line) -> bool:
    """Whether a line, which a visitor may have written, has the text and figures that are shown."""
    seconds = line.get("seconds")
    total = seconds.get("total") if isinstance(seconds, Mapping) else None
    figures = [total, line.get("audio_seconds"), line.get("real_time_factor")]
    counts = [line.get(name) for name in ("expected", "errors", "error_rate")]
    figures += [] if all(each is None for each in counts) else counts[:2]
    figures += [] if counts[2] is None else counts[2:]
    return (
        line.get("error") is None
        and isinstance(line.get("text"), str)
        and line.get("unit") in ("word", "character", None)
        and all(isinstance(x, int | float) and 0 <= x < MOST for x in figures)
    )


@dataclass(frozen=True, eq=False)
class Results:
    """Clips and lanes, and a line for each pair that is done.

    `tasks` and `lines`: lane by lane, the clips of each in order; a line is None until its task is
    done. `current`: the place of the task that runs. `baseline`: the lane that the others are held
    against.
    """

    clips: Sequence[ListedClip]
    lanes: Sequence[Lane]
    baseline: int
    tasks: Sequence[evaluation_lines.Task]
    lines: tuple[Line | None, ...]
    current: int | None = None

    def of_clip(self, clip: int) -> list[Line | None]:
        """Return a clip's line of each lane."""
        return list(self.lines[clip :: len(self.clips)])

    def of_lane(self, lane: int) -> tuple[Line | None, ...]:
        """Return a lane's line of each clip."""
        count = len(self.clips)
        return self.lines[lane * count : (lane + 1) * count]

    def summarise(self, lane: int) -> list[dict[str, Any]]:
        """Return a lane's summaries, as `evaluate` prints them: one for each unit counted."""
        count = len(self.clips)
        tasks = self.tasks[lane * count : (lane + 1) * count]
        return evaluation_lines.summarise(tasks, filter(None, self.of_lane(lane)))

    def write(self) -> str:
        """Write the lines that there are as `evaluate` does."""
        lines = (json.dumps(line, ensure_ascii=False) for line in self.lines if line)
        return "".join(f"{line}\n" for line in lines)
