"""The export step: training weights to a checkpoint in OpenAI's own format, deflated.

The weights are stored as float16, as in OpenAI's files; `whisper.load_model` copies them into
float32 parameters. The shared row of the compact vocabulary goes to every place that training
never used, so the file deflates to a third.
"""

import io
import zipfile
from dataclasses import asdict
from pathlib import Path

import torch

from . import tokens as vocab
from .network import DIMS
from .train import EMBEDDING

EXPORTED = {"polish": 0.2, "settle": 0.8}
"""The share that the weights at the end of a stage have in what is exported."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that equal weights make an equal file


def full_embedding(compact: torch.Tensor) -> torch.Tensor:
    """(rows, width) compact rows -> (51864, width); unlisted tokens get the last row."""
    return compact[torch.from_numpy(vocab.compact_index())]


def checkpoint(weights: dict[str, torch.Tensor]) -> dict:
    """The training state dict -> `{"dims", "model_state_dict"}` in float16, helpers dropped."""
    state = {k: v for k, v in weights.items() if k.startswith(("encoder.", "decoder."))}
    state[EMBEDDING] = full_embedding(state[EMBEDDING])
    state = {k: v.detach().to(torch.float16).contiguous() for k, v in state.items()}
    return {"dims": asdict(DIMS), "model_state_dict": state}


def write(weights: dict[str, torch.Tensor], target: Path) -> int:
    """Write the deflated checkpoint; returns its size in bytes."""
    stored = io.BytesIO()
    torch.save(checkpoint(weights), stored)
    part = target.with_suffix(".part")
    with zipfile.ZipFile(stored) as plain, zipfile.ZipFile(part, "w") as packed:
        for name in plain.namelist():
            entry = zipfile.ZipInfo(name, _EPOCH)
            packed.writestr(entry, plain.read(name), zipfile.ZIP_DEFLATED, compresslevel=9)
    part.replace(target)
    return target.stat().st_size


def mean(states: dict[str, dict[str, torch.Tensor]], shares: dict[str, float]) -> dict:
    """The mean of several state dicts, tensor by tensor, by the share that each has."""
    first, *_ = states.values()
    return {
        name: sum(share * states[stage][name].float() for stage, share in shares.items())
        for name in first
    }


def export(run: Path, target: Path, shares: dict[str, float] = EXPORTED) -> None:
    """Export the mean of the weights that `run` had after each of the stages."""
    states = {stage: torch.load(run / f"{stage}.pt", map_location="cpu") for stage in shares}
    size = write(mean(states, shares), target)
    parts = " and ".join(f"{share:.0%} of {stage}" for stage, share in shares.items())
    print(f"export: {target} {size / 1e6:.2f} MB, {parts}")
