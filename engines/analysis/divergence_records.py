"""Where two engines part, as a record that is importable without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engines.analysis.records import quote

Parts = Literal["nowhere", "token", "prompt", "window", "fallback", "word"]
Cause = Literal["encoder", "decoder", "both", "neither", ""]


@dataclass(frozen=True)
class Candidate:
    """One of the two tokens that engines chose, or of words, whose `token` is None.

    `allowed`: whether whisper's filters leave it.
    """

    token: int | None
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
    (`fallback`); at a `word` of the text, for models of two vocabularies; or `nowhere`.
    `window`: counted from 0, beginning at `start` seconds; `position`:
    of the token among those chosen for the window, or in its prompt. `time`: when the candidates
    are said, in seconds of the clip. `before`: the window's text up to there. `candidates`: what
    the first and the second engine chose. `judge`: the same step in PyTorch in float64, and
    `judge_best` the tokens that it finds likeliest. `sequences`: after a beam search the scores
    that the judge gives both engines' whole windows. `pairings`: the engines' halves in all four
    pairings, first-first, first-second, second-first and second-second; none where an engine's
    halves can't be replayed. `cause`: the half that the choice follows; `both` where it follows
    neither alone, `neither` where the step by itself does not repeat both choices. `encoder_moves`
    and `decoder_moves`: each half's part in the difference of the margins. `models`: of engines of
    two models, and `judges` the same step by either in float64, where they share a vocabulary;
    there is no one `judge` then.
    """

    engines: tuple[str, str]
    labels: tuple[str, str]
    model: str
    clip: str
    beam_size: int
    parts: Parts = "nowhere"
    window: int = 0
    start: float = 0.0
    position: int = 0
    time: float = 0.0
    before: str = ""
    candidates: tuple[Candidate, ...] = ()
    judge: Pairing | None = None
    judge_best: tuple[tuple[str, float], ...] = ()
    sequences: tuple[float, ...] = ()
    pairings: tuple[Pairing, ...] = ()
    cause: Cause = ""
    encoder_moves: float | None = None
    decoder_moves: float | None = None
    models: tuple[str, ...] = ()
    judges: tuple[Pairing, ...] = ()

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
        margins = [each.margin for each in (self.judge, *self.judges) if each]
        if self.parts != "token" or None in margins or not margins:
            return self.parts != "nowhere"
        return any(abs(each) > margin for each in margins if each is not None)

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
        if self.parts == "word":
            told = [str(each) if each.text else "no more" for each in self.candidates]
            return f"They part at {self.time:.1f} s: {first} wrote {told[0]}, {second} {told[1]}."
        if self.parts == "prompt":
            return f"Their prompts for {window} differ: {first} was given {one}, {second} {other}."
        return f"They part at {self.time:.1f} s: {first} chose {one}, {second} {other}."

    def _tell_models(self) -> str:
        """Say what two models prefer, and which engine departs from its own."""
        if self.parts == "word":
            return (
                f"{' and '.join(self.models)} have different vocabularies, so no token of one can "
                "be held against the other’s: how likely each found its word, and which half parts "
                "them, can’t be told."
            )
        margins = [each.margin for each in self.judges if each.margin is not None]
        if len(margins) < 2:
            return ""
        choices = [int(margin < 0) for margin in margins]
        told = [
            f"{model} prefers {self.candidates[choice]} by {format_margin(abs(margin))}"
            for model, choice, margin in zip(self.models, choices, margins, strict=True)
        ]
        strayed = [self.labels[at] for at in range(2) if choices[at] != at]
        ends = "each engine wrote what its checkpoint says"
        if strayed:
            ends = f"what {' and '.join(strayed)} wrote is not its own checkpoint’s choice"
        return (
            f"In float64 {told[0]}, {told[1]}: {ends}. Which model is right only the words really "
            "spoken can tell."
        )

    def _tell_cause(self) -> str:
        if self.models:
            return self._tell_models()
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
        if self.models and not forbidden:
            return ""
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


def format_margin(margin: float) -> str:
    """Write a difference of log-probabilities with four digits, small ones with powers of ten."""
    return f"{margin:.4f}" if abs(margin) >= 0.001 or not margin else f"{margin:.1e}"
