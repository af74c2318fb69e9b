"""`python -m llavakit.data.scenes`: write samples of the drawn world."""

import argparse
from pathlib import Path
from typing import get_args

from .records import SampleKind
from .split import Split
from .write import write_scenes


def main() -> None:
    parser = argparse.ArgumentParser(description="Write drawn scenes as LLaVA JSON and image files.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--count", type=int, required=True, help="number of samples")
    parser.add_argument("--start", type=int, default=0, help="number of the first sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", choices=get_args(Split), default="train")
    parser.add_argument("--kind", choices=get_args(SampleKind), default="captions")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    asked = parser.parse_args()
    chosen = {name: value for name, value in vars(asked).items() if name != "out"}
    print(write_scenes(asked.out, **chosen))


if __name__ == "__main__":
    main()
