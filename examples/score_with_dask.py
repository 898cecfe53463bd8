"""Score a file of any size on all cores with Dask: one stored version, mapped over pieces of rows.

Only Dask's worker processes run: no service, no store. Each process loads the version once. Every
piece is read and scored, and its scores are written to their place in the output. So memory holds
one piece for each worker. The scores are those of one process, to the last bit.

    pip install 'anamnesis[dask]' pyarrow
    python examples/score_with_dask.py rows.parquet pump.anamnesis --output scores.npy --workers 2

The rows are a matrix in an .npy file, or the columns of a Parquet file in the order of the version.
All of it rests on `Version.load(path).score`, which Ray Data's `map_batches` takes in the same way.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores, not their threads
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import dask
import numpy as np
from numpy.lib.format import open_memmap

from models import Version

ROWS = 100_000  # of a piece


@cache
def version(path: Path) -> Version:
    """Return the stored version, loaded once in a process."""
    return Version.load(path)


def pieces(file: Path) -> list[tuple[int, int, int]]:
    """Return the pieces of a file: where each begins and ends, and its row group in Parquet."""
    if file.suffix == ".npy":
        n = len(np.load(file, mmap_mode="r"))
        return [(start, min(start + ROWS, n), 0) for start in range(0, n, ROWS)]
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as opened:
        groups = opened.metadata
        sizes = [groups.row_group(i).num_rows for i in range(groups.num_row_groups)]
    ends = np.cumsum(sizes).tolist()
    return [(end - size, end, i) for i, (size, end) in enumerate(zip(sizes, ends, strict=True))]


def read(file: Path, piece: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Yield the rows of a piece, (n, d) float32."""
    start, stop, group = piece
    if file.suffix == ".npy":
        yield np.asarray(np.load(file, mmap_mode="r")[start:stop], np.float32)
        return
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file) as opened:
        for batch in opened.iter_batches(ROWS, row_groups=[group]):
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
            yield np.column_stack(columns).astype(np.float32)


def score(file: Path, model: Path, output: Path, piece: tuple[int, int, int]) -> int:
    """Score a piece and write its scores to their place in the output; return how many."""
    scores, at = open_memmap(output, "r+"), piece[0]
    for X in read(file, piece):
        scores[at : at + len(X)] = version(model).score(X)
        at += len(X)
    return at - piece[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the scores of all rows, a float64 vector in an .npy file; return how many."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help=".npy or .parquet")
    parser.add_argument("version", type=Path, help="written by Version.save")
    parser.add_argument("--output", type=Path, default=Path("scores.npy"))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args(arguments)
    parts, began = pieces(args.file), time.perf_counter()
    open_memmap(args.output, "w+", np.float64, (parts[-1][1],)).flush()
    task = dask.delayed(score)
    tasks = [task(args.file, args.version, args.output, piece) for piece in parts]
    options = {"scheduler": "processes", "num_workers": args.workers}
    if args.workers == 1:
        options = {"scheduler": "synchronous"}
    rows = sum(dask.compute(*tasks, **options))
    seconds, cpu = time.perf_counter() - began, sum(os.times()[:4])
    print(f"{rows} rows in {seconds:.1f} s, {cpu:.1f} s of processor time: {args.output}")
    return rows


if __name__ == "__main__":
    main()
