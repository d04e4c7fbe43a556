"""The commands `layers` and `faults`: encoders compared after every stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import typer

from engines import logs, microscope
from engines.audio import load_clip
from engines.benchmark.speed import find_clip
from engines.examination import Examination, StageReading
from engines.faults.catalogue import FAULTS
from engines.faults.catalogue import get as get_fault
from engines.faults.lab import Finding, run_fault


def compare(names: Sequence[str], model: str, clip: str, start: float = 0.0) -> Examination:
    """Compare encoders, spelled ENGINE or ENGINE:TYPE, with the first, over one window."""
    return microscope.look(names, model, load_clip(find_clip(clip)), start=start)


def largest_errors(found: Examination) -> dict[str, float]:
    """Return each encoder's largest relative error over all stages."""
    return {
        specimen.name: max(stage.error(specimen.name) for stage in found.stages)
        for specimen in found.others
    }


def show_layers(
    names: Sequence[str],
    model: str,
    clip: str,
    start: float,
    tolerance: float | None,
    as_json: bool,
) -> int:
    """Print a comparison; return 1 when an encoder is past the tolerance."""
    found = compare(names, model, clip, start)
    if tolerance is not None:
        found = replace(found, tolerance=tolerance)
    if as_json:
        content = {"run": logs.current_run(), **layers_json(found)}
        typer.echo(json.dumps(content, ensure_ascii=False))
    else:
        typer.echo(layers_text(found))
    return int(any(found.first_past(specimen.name) for specimen in found.others))


def layers_json(found: Examination) -> dict[str, Any]:
    """Return one object; a figure that is not finite, for which JSON has no word, is null.

    `model`, `clip`, `start` in seconds, `tolerance`, `baseline`, `specimens` (`name`, `label`,
    `device`, and `first_past`: the first stage past the tolerance, or null) and `stages` (`name`,
    `shape`, `statistics` and `similarity` by specimen).
    """
    return {
        "model": found.model,
        "clip": found.clip,
        "start": found.start,
        "tolerance": found.tolerance,
        "baseline": found.baseline.name,
        "specimens": [
            {
                "name": specimen.name,
                "label": specimen.label,
                "device": specimen.device,
                "first_past": found.first_past(specimen.name) if specimen in found.others else None,
            }
            for specimen in found.specimens
        ],
        "stages": [
            {
                "name": stage.name,
                "shape": list(stage.shape),
                "statistics": {name: _finite(each) for name, each in stage.statistics.items()},
                "similarity": {name: _finite(each) for name, each in stage.similarity.items()},
            }
            for stage in found.stages
        ],
    }


def _finite(figures: Any) -> dict[str, float | None] | None:
    if figures is None:
        return None
    return {key: value if np.isfinite(value) else None for key, value in asdict(figures).items()}


HEADINGS = ("mean", "std", "min", "max", "relative L2", "cosine", "max |Δ|")


def layers_text(found: Examination) -> str:
    """Return a table for each encoder but the baseline, and a sentence beneath it."""
    baseline = found.baseline
    lines = [
        f"{found.model}, {found.clip}, the window at {found.start:g} s",
        f"baseline: {baseline.label} ({baseline.device})",
    ]
    for specimen in found.others:
        lines += ["", f"{specimen.label} ({specimen.device})"]
        lines.append(f"{'stage':<12}" + "".join(f"{name:>13}" for name in HEADINGS))
        lines += [_stage_line(stage, specimen.name) for stage in found.stages]
        first = found.first_past(specimen.name)
        lines.append(
            f"past {found.tolerance:.0e} from {first} on"
            if first
            else f"every stage is within {found.tolerance:.0e} of the baseline"
        )
    return "\n".join(lines)


def _stage_line(stage: StageReading, name: str) -> str:
    statistics, similarity = stage.statistics[name], stage.similarity[name]
    if statistics is None:
        return f"{stage.name:<12}" + "not finite".rjust(13)
    values = (statistics.mean, statistics.std, statistics.minimum, statistics.maximum)
    line = f"{stage.name:<12}" + "".join(f"{value:13.5f}" for value in values)
    if similarity is None:
        return line + "other shape".rjust(13)
    apart = f"{similarity.relative_l2:13.1e}{similarity.cosine:13.9f}{similarity.max_abs:13.1e}"
    return line + apart


def show_faults(keys: Sequence[str], model: str, clip: str, language: str, as_json: bool) -> None:
    """Run and print each fault, all of them when none is named."""
    faults = [get_fault(key) for key in keys] or FAULTS
    sound = load_clip(find_clip(clip))
    for fault in faults:
        found = run_fault(fault, model, sound, language)
        if as_json:
            typer.echo(json.dumps(fault_json(found), ensure_ascii=False))
        else:
            typer.echo(fault_text(found))


def fault_json(found: Finding) -> dict[str, Any]:
    """Return one object; `first_stage` is null where no stage of the encoder shows the fault.

    `right` and `faulty` are the texts without and with it; `faulty` is null where the run broke,
    and then `error` says how. `examination` is as `layers_json` has it.
    """
    return {
        "fault": found.fault.key,
        "title": found.fault.title,
        "model": found.model,
        "clip": found.clip,
        "audio_seconds": found.audio_seconds,
        "first_stage": found.first_stage,
        "right": found.right.text.strip(),
        "faulty": None if found.faulty is None else found.faulty.text.strip(),
        "error": found.error,
        "examination": layers_json(found.examination),
    }


def fault_text(found: Finding) -> str:
    """Return a few lines: where it first shows, the features at the end, and both texts."""
    last, name = found.examination.stages[-1], found.specimen.name
    figures, similarity = last.statistics[name], last.similarity[name]
    lines = [
        f"{found.fault.key}: {found.fault.title}",
        f"  first shows  {found.first_stage or 'nowhere in the encoder'}",
    ]
    if figures is not None and similarity is not None:
        lines.append(
            f"  features     mean {figures.mean:.4f}, std {figures.std:.4f}, cosine "
            f"{similarity.cosine:.6f}, relative error {similarity.relative_l2:.1e}"
        )
    lines.append(f"  right        {found.right.text.strip()}")
    text = found.error if found.faulty is None else found.faulty.text.strip()
    lines.append(f"  with fault   {text}")
    return "\n".join(lines)
