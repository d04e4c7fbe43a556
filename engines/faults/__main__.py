"""`python -m engines.faults`: where each fault first shows in a clip, and what text comes out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from engines import microscope
from engines.audio import load_clip
from engines.base import EngineError
from engines.checkpoints import DEFAULT_MODEL
from engines.faults.catalogue import FAULTS, get
from engines.faults.lab import Finding, run_fault


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what each fault does; exit status 1 after an error."""
    asked = _parse(arguments)
    try:
        faults = [get(key) for key in asked.faults] or FAULTS
        clip = load_clip(asked.clip)
        for fault in faults:
            finding = run_fault(fault, asked.model, clip, asked.language)
            if asked.json:
                print(json.dumps(as_json(finding), ensure_ascii=False), flush=True)
            else:
                print(render_text(finding), flush=True)
    except EngineError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def as_json(finding: Finding) -> dict[str, Any]:
    """One object: `fault`, `title`, `model`, `clip`, `audio_seconds`, `first_stage` (null where the
    encoder's stages don't show it), `right` and `faulty` text (null where the run broke, and then
    `error` says how), and `examination` as `engines.microscope` prints it."""
    return {
        "fault": finding.fault.key,
        "title": finding.fault.title,
        "model": finding.model,
        "clip": finding.clip,
        "audio_seconds": finding.audio_seconds,
        "first_stage": finding.first_stage,
        "right": finding.right.text.strip(),
        "faulty": None if finding.faulty is None else finding.faulty.text.strip(),
        "error": finding.error,
        "examination": microscope.as_json(finding.examination),
    }


def render_text(finding: Finding) -> str:
    """A few lines: where it first shows, the features at the end, and both texts."""
    last = finding.examination.stages[-1]
    figures = last.statistics[finding.specimen.name]
    similarity = last.similarity[finding.specimen.name]
    lines = [f"{finding.fault.key}: {finding.fault.title}"]
    first = finding.first_stage or "nowhere in the encoder"
    lines.append(f"  first shows  {first}")
    if figures is not None and similarity is not None:
        lines.append(
            f"  features     mean {figures.mean:.4f}, std {figures.std:.4f}, cosine "
            f"{similarity.cosine:.6f}, relative error {similarity.relative_l2:.1e}"
        )
    lines.append(f"  right        {finding.right.text.strip()}")
    text = finding.error if finding.faulty is None else finding.faulty.text.strip()
    lines.append(f"  with fault   {text}")
    return "\n".join(lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m engines.faults",
        description="Put faults into MAX's encoder and print where each first shows and what text "
        "comes out.",
    )
    known = ", ".join(fault.key for fault in FAULTS)
    parser.add_argument("faults", nargs="*", help=f"all when left out: {known}")
    parser.add_argument("--clip", default=str(microscope.CLIP), help="any audio file")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="nano, an official name, or a path")
    parser.add_argument("--language", default="en", help="a code")
    parser.add_argument("--json", action="store_true", help="print one JSON object a fault")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
