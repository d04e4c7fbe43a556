"""One command for each step: `python -m assets.nano.recipe all|text|speech|train|export|evaluate`.

Each step goes on from what is already in the work folder, so a stopped run is started again.
"""

import argparse
import itertools
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
STEPS = ("text", "speech", "train", "export", "evaluate")
SHARDS = 200


def run(step: str, work: Path, threads: int, processes: int, exported: Path | None = None) -> None:
    """Run one step; imports wait until they are needed, for some steps need no synthesizer."""
    import torch

    torch.set_num_threads(threads)
    if step == "text":
        from . import text

        print(f"{len(text.vocabulary())} words; some training sentences:")
        print("\n".join(itertools.islice(text.training_sentences(1), 10)))
    elif step == "speech":
        from .speech import make_speech

        make_speech(work / "speech", range(1, SHARDS + 1))
    elif step == "train":
        from .train import train

        train(work / "speech", work / "run", exported=exported, processes=processes)
    elif step == "export":
        from .export import export

        export(work / "run", HERE / "nano.pt")
    else:
        from .evaluate import evaluate

        evaluate(HERE / "nano.pt")


def main() -> None:
    """Parse the command line and run the steps asked for."""
    parser = argparse.ArgumentParser(prog="assets.nano.recipe", description=__doc__)
    parser.add_argument("step", choices=("all", *STEPS))
    parser.add_argument("--work", type=Path, default=HERE / "work", help="folder for the data")
    parser.add_argument("--threads", type=int, default=2, help="of one process")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="that train together, a batch each: 2 on two cores made what is shipped",
    )
    parser.add_argument(
        "--start-from", type=Path, metavar="FILE", help="train on from an exported checkpoint"
    )
    options = parser.parse_args()
    for step in STEPS if options.step == "all" else (options.step,):
        run(step, options.work, options.threads, options.processes, options.start_from)


if __name__ == "__main__":
    main()
