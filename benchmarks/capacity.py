"""The cost of a detector, in processor time and bytes, by its dimension.

It measures the scoring rate of a core, the processor time of a training, and the bytes of an
artifact. The plan in docs/capacity.md is calculated from these figures.

    python -m benchmarks.capacity --output benchmarks/results/capacity.json
"""

import time

import numpy as np

from benchmarks import report

DIMENSIONS, ROWS, BATCH = (8, 32, 128), 1000, 1000


def measure(name, config, dimension, rows):
    """Return one row: a training on this many vectors, and scoring with its version."""
    from models import train

    X = np.random.default_rng(0).normal(size=(max(rows, BATCH), dimension)).astype(np.float32)
    began = time.process_time()
    version = train(None, X[:rows], config)
    trained = time.process_time() - began
    return {
        "detector": name,
        "dimension": dimension,
        "vectors": rows,
        "training cpu s": round(trained, 2),
        "artifact kB": round(len(version.to_bytes()) / 1000),
        "a thousand, vectors/s": round(BATCH / fastest(version, X[:BATCH])),
        "one by one, vectors/s": round(1 / fastest(version, X[:1])),
    }


def fastest(version, X):
    """Return the least processor time, seconds, that judging X took in twenty tries."""
    threshold, times = version.threshold_for(version.config.threshold), []
    for _ in range(20):
        began = time.process_time()
        version.judge(X, threshold)
        times.append(time.process_time() - began)
    return max(min(times), 1e-6)


def main():
    from models import Config

    parser = report.arguments(__doc__)
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS)
    parser.add_argument("--rows", type=int, default=ROWS, help="vectors of a training")
    parser.add_argument("--only", choices=("mahalanobis", "auto"))
    args = parser.parse_args()
    configs = {"mahalanobis": Config(kind="mahalanobis"), "auto": Config()}
    rows = [
        measure(name, config, dimension, args.rows)
        for name, config in configs.items()
        if args.only in (None, name)
        for dimension in args.dimensions
    ]
    report.report("Capacity", rows, args.output)


if __name__ == "__main__":
    main()
