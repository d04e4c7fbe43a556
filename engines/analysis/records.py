"""Results of the analyses, and the encoders to inspect; NumPy only, importable without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from engines import registry
from engines.base import FloatArray, Stages
from engines.metrics import FeatureSimilarity, FeatureStatistics, SharedHistograms

FACTOR = 8.0
"""How many times PyTorch's own float32 error an encoder's error may be at any stage.

Both errors are relative L2 errors against the same encoder in float64, so the bound follows the
checkpoint: one with outlier channels, such as `base`, magnifies every rounding alike. See
`engines.analysis.layers` for the measurements.
"""


def not_open(mel: FloatArray) -> Stages:
    """Stand in for the stages of an encoder that is not open."""
    raise ValueError("this encoder is not open")


@dataclass(frozen=True)
class Encoder:
    """An encoder of this machine; `name` is spelled `ENGINE:DTYPE`.

    `rounds_to`: the half type that its weights or products are rounded to, or "". The bound, which
    is float32's, does not apply to such an encoder. `stages`, once it is open, maps one log-mel
    window, float32 `(n_mels, 3000)`, to the output of every stage.
    """

    name: str
    label: str
    device: str = ""
    stages: Callable[[FloatArray], Stages] = field(default=not_open, repr=False, compare=False)
    rounds_to: str = ""


def candidates() -> tuple[Encoder, ...]:
    """Return every encoder that this machine can open, the baseline first.

    Engines that share an encoder, and so name the same `open_stages`, are offered once.
    """
    found, offered = [], set()
    for row in registry.ENGINES:
        if row.open_stages in offered or not row.open_stages or row.why_unavailable():
            continue
        offered.add(row.open_stages)
        found += [Encoder(f"{row.key}:{dtype}", f"{row.label}, {dtype}") for dtype in row.dtypes]
    return tuple(found)


@dataclass(frozen=True)
class StageComparison:
    """One stage of all encoders, by name.

    `similarity` is to the baseline, which has no entry. `errors`: relative L2 error against the
    float64 encoder, infinite where values are not finite or have another shape. `float32_error`:
    the same error of PyTorch in float32 on the CPU. `histograms`, `statistics` and `similarity`
    are None where an encoder's values are not finite.
    """

    name: str
    shape: tuple[int, ...]
    histograms: SharedHistograms | None = field(repr=False)
    statistics: Mapping[str, FeatureStatistics | None]
    similarity: Mapping[str, FeatureSimilarity | None]
    errors: Mapping[str, float]
    float32_error: float


@dataclass(frozen=True)
class LayerComparison:
    """Several encoders after every stage of one window; the first encoder is the baseline.

    `start`: seconds from the clip's start to the window's. `factor`: see `FACTOR`.
    """

    model: str
    clip: str
    start: float
    encoders: tuple[Encoder, ...]
    stages: tuple[StageComparison, ...]
    factor: float = FACTOR

    @property
    def baseline(self) -> Encoder:
        """The encoder that the others are compared with."""
        return self.encoders[0]

    @property
    def others(self) -> tuple[Encoder, ...]:
        """All encoders but the baseline."""
        return self.encoders[1:]

    def bound(self, stage: StageComparison) -> float:
        """Return the largest error of a stage that counts as the same in float32."""
        return self.factor * stage.float32_error

    def first_past(self, name: str) -> str | None:
        """Return the first stage at which an encoder's error is above the bound, or None."""
        past = (stage.name for stage in self.stages if stage.errors[name] > self.bound(stage))
        return next(past, None)


# Where two engines part


Parts = Literal["nowhere", "token", "prompt", "window", "fallback"]
Cause = Literal["encoder", "decoder", "both", "neither", ""]


@dataclass(frozen=True)
class Candidate:
    """One of the two tokens that engines chose; `allowed`: whether whisper's filters leave it."""

    token: int
    text: str
    allowed: bool = True

    def __str__(self) -> str:
        return quote(self.text)


@dataclass(frozen=True)
class Pairing:
    """One step of decoding by one engine's encoder and another's decoder.

    `logprobs`: of both candidates; `margin`: by how much the first is preferred to the second,
    negative where it isn't. None is a number that is not finite.
    """

    encoder: str
    decoder: str
    logprobs: tuple[float | None, float | None]
    margin: float | None


@dataclass(frozen=True)
class Divergence:
    """Where two engines' tokens for one clip part, and why.

    `parts`: at a `token`; at a token of the `prompt`; at a `window` that begins elsewhere, is
    missing or was taken for silence by one; at a window that one sampled above temperature 0
    (`fallback`); or `nowhere`. `window`: counted from 0, beginning at `start` seconds; `position`:
    of the token among those chosen for the window, or in its prompt. `time`: when the candidates
    are said, in seconds of the clip. `before`: the window's text up to there. `candidates`: what
    the first and the second engine chose. `judge`: the same step in PyTorch in float64, and
    `judge_best` the tokens that it finds likeliest. `sequences`: after a beam search the scores
    that the judge gives both engines' whole windows. `pairings`: the engines' halves in all four
    pairings, first-first, first-second, second-first and second-second; none where an engine's
    halves can't be replayed. `cause`: the half that the choice follows; `both` where it follows
    neither alone, `neither` where the step by itself does not repeat both choices. `encoder_moves`
    and `decoder_moves`: each half's part in the difference of the margins.
    """

    engines: tuple[str, str]
    labels: tuple[str, str]
    model: str
    clip: str
    beam_size: int
    parts: Parts
    window: int
    start: float
    position: int
    time: float
    before: str
    candidates: tuple[Candidate, ...] = ()
    judge: Pairing | None = None
    judge_best: tuple[tuple[str, float], ...] = ()
    sequences: tuple[float, ...] = ()
    pairings: tuple[Pairing, ...] = ()
    cause: Cause = ""
    encoder_moves: float | None = None
    decoder_moves: float | None = None

    @property
    def right(self) -> int | None:
        """Which engine wrote what the judge prefers, 0 or 1; None where it doesn't say."""
        if self.sequences:
            return int(self.sequences[0] < self.sequences[1])
        if self.judge is None:
            return None
        if self.judge.margin is None:  # one of them is against whisper's rules
            allowed = [each.allowed for each in self.candidates]
            return allowed.index(True) if sum(allowed) == 1 else None
        return int(self.judge.margin < 0)

    def is_past(self, margin: float) -> bool:
        """Return whether the engines part for more than a call that the judge finds this close."""
        if self.parts != "token" or self.judge is None or self.judge.margin is None:
            return self.parts != "nowhere"
        return abs(self.judge.margin) > margin

    def sentences(self) -> tuple[str, ...]:
        """Say where the engines part, which half parts them and who is right, in a sentence each,
        as far as it is known."""
        return tuple(filter(None, (self._tell_where(), self._tell_cause(), self._tell_verdict())))

    def _tell_where(self) -> str:
        first, second = self.labels
        window = f"the window at {self.start:.1f} s"
        match self.parts:
            case "nowhere":
                return f"{first} and {second} chose the same tokens."
            case "window":
                return (
                    f"From {window} on they decoded other windows: one begins elsewhere, or was "
                    "taken for silence."
                )
            case "fallback":
                return (
                    f"One of them decoded {window} anew by sampling, after Whisper’s tests had "
                    "failed: no single step explains what it chose."
                )
        one, other = self.candidates
        if self.parts == "prompt":
            return f"Their prompts for {window} differ: {first} was given {one}, {second} {other}."
        return f"They part at {self.time:.1f} s: {first} chose {one}, {second} {other}."

    def _tell_cause(self) -> str:
        if self.parts != "token":
            return ""
        match self.cause:
            case "encoder" | "decoder":
                other = "decoder" if self.cause == "encoder" else "encoder"
                return f"The {self.cause}s part them: the choice is the same with either {other}."
            case "both":
                return "Both halves have a part in it: neither alone decides the choice."
            case "neither":
                return "This step by itself does not repeat both choices."
        return "Which half parts them can’t be told: an engine keeps what its halves compute."

    def _tell_verdict(self) -> str:
        forbidden = [str(each) for each in self.candidates if not each.allowed]
        if self.right is None:
            if forbidden:
                return f"Whisper’s rules allow neither of them here: {' and '.join(forbidden)}."
            return ""
        label, best = self.labels[self.right], self.judge_best[0][0] if self.judge_best else ""
        if self.sequences:
            scores = sorted(self.sequences, reverse=True)
            return (
                f"{label} is right: PyTorch in float64 gives its whole window {scores[0]:.4f} a "
                f"token, the other {scores[1]:.4f}."
            )
        if self.judge is None or self.judge.margin is None:
            return f"{label} is right: Whisper’s rules don’t allow {forbidden[0]} here."
        own = f" It would itself choose {quote(best)}."
        if best in [each.text for each in self.candidates]:
            own = ""
        margin = abs(self.judge.margin)
        return (
            f"{label} is right: PyTorch in float64 prefers {self.candidates[self.right]} by "
            f"{format_margin(margin)}.{own}"
        )


def quote(token: str) -> str:
    """Quote a token's text for a sentence, without the space that most words begin with."""
    return f"“{token.strip() or token}”"


def format_margin(margin: float) -> str:
    """Write a difference of log-probabilities with four digits, small ones with powers of ten."""
    return f"{margin:.4f}" if abs(margin) >= 0.001 or not margin else f"{margin:.1e}"
