"""Where a clip's samples came from: its file's tracks, the one read, the clock, what is odd."""

from __future__ import annotations

from dataclasses import dataclass

PLAYABLE = {
    "wav": {"pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le"},
    "mp3": {"mp3", "mp3float"},
    "flac": {"flac"},
    "ogg": {"opus", "vorbis", "flac"},
    "mov": {"aac"},
    "aac": {"aac"},
}
"""Codings that every browser plays, by container; of Matroska only what is named WebM."""

LEFT, RIGHT = 1, 2

MOST_TRACKS = 99
MOST_CHANNELS = 64


@dataclass(frozen=True)
class Track:
    """One audio track of a file; `number` counts from 1, `default` is the one players choose."""

    number: int
    codec: str
    channels: int
    language: str = ""
    title: str = ""
    default: bool = False

    def describe(self) -> str:
        """Return the number and what tells the track from others, for a list or a sentence."""
        sides = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        known = (self.title, self.language, self.codec, sides, "default" if self.default else "")
        return f"{self.number} ({', '.join(filter(None, known))})"


@dataclass(frozen=True)
class Source:
    """What is known of a clip's file beside its samples.

    `track`: the number of the one that was read. `channel`: the one that was taken alone, 0 where
    all were mixed. `clock`: pairs of seconds, from which second of the samples on how many are
    added to get the file's own time: sound may start late, or pause. `notes`: sentences about what
    is odd. `broke_off`: why reading ended before the file did, a sentence, or nothing. `format`:
    FFmpeg's name of the container. `film`: whether there are pictures beside the sound.
    """

    tracks: tuple[Track, ...] = ()
    track: int = 1
    channel: int = 0
    clock: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()
    broke_off: str = ""
    format: str = ""
    film: bool = False

    @property
    def channels(self) -> int:
        """Return how many channels the track has that was read; 0 where it isn't known."""
        return next((each.channels for each in self.tracks if each.number == self.track), 0)

    def is_playable(self, ending: str) -> bool:
        """Return whether browsers play the file as it is; `ending`: of its name."""
        if self.film or len(self.tracks) != 1 or self.channel:
            return False
        kind, codec = self.format.split(",")[0], self.tracks[0].codec
        if kind == "matroska":
            return ending.lower() == ".webm" and codec in ("opus", "vorbis")
        return codec in PLAYABLE.get(kind, ())

    def file_time(self, seconds: float, ends: bool = False) -> float:
        """Return the file's time at a second of the samples; `ends`: whether something ends there,
        so that a pause which begins there isn't counted."""
        passed = (
            added for since, added in self.clock if (since < seconds if ends else since <= seconds)
        )
        first = self.clock[0][1] if self.clock and self.clock[0][0] <= 0 else 0.0
        return seconds + max(passed, default=first)

    def sample_time(self, seconds: float) -> float:
        """Return the second of the samples at a time of the file; in a pause where it begins."""
        found, before = seconds, 0.0
        for since, added in self.clock:
            if seconds < since + before:
                break
            found, before = max(since, seconds - added), added
        return found

    def sentences(self) -> tuple[str, ...]:
        """Return what a reader of the transcript must know."""
        return (*self.notes, *filter(None, (self.broke_off,)))


UNKNOWN = Source()
"""Of samples that came from no file."""


class Clock:
    """Follows a track's time stamps; `pairs` are those of `Source.clock`."""

    LEAST_START = 0.02
    """Seconds, Whisper's own grain; a late start below it is none."""
    LEAST_JUMP = 0.1
    """Seconds; less is the rounding of time stamps."""
    MOST_JUMP = 10.0
    """Seconds; in a broadcast's stream a longer jump is a new clock, as for ffmpeg."""

    def __init__(self, start: float, restarts: bool) -> None:
        """`start`: the file's, seconds; `restarts`: whether its kind may set its clock anew."""
        self.pairs: list[tuple[float, float]] = []
        self._zero, self._restarts, self._added, self._any = start, restarts, 0.0, False

    def restart(self) -> None:
        """Expect a new clock, which goes on where the last one ended."""
        self._any = bool(self.pairs) or self._any

    def note(self, time: float | None, heard: float) -> None:
        """Take in a frame's time stamp after so many seconds of sound."""
        if time is None:
            return
        jump = time - self._zero - self._added - heard
        if not self._any:
            self._any = True
            if jump >= self.LEAST_START:
                self._add(jump, heard)
            return
        if abs(jump) <= self.LEAST_JUMP:
            return
        if jump < 0 or (self._restarts and jump > self.MOST_JUMP):
            self._zero += jump
        else:
            self._add(jump, heard)

    def _add(self, seconds: float, heard: float) -> None:
        self._added += seconds
        self.pairs.append((heard, self._added))
