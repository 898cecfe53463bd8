"""The share of normals that alarms when values are missing, at 5 % asked.

A detector with `missing: impute` learns half of a set's normals, at most 2,000. Of the other
normals, at most 2,000, a share of the values is hidden at random; each row keeps one value at
least.

    ANAMNESIS_DATA=data python -m benchmarks.missing_values --output benchmarks/results/missing.json
"""

import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np
from sklearn.datasets import load_digits

from benchmarks import data
from benchmarks.report import arguments, report, spread
from benchmarks.runs import Runs, with_keys
from benchmarks.runs import arguments as run_arguments
from models import Config, train

SETS = ("satellite", "annthyroid", "cardio", "digits")
KINDS = ("vae", "mahalanobis")
HIDDEN = (0.0, 0.1, 0.3, 0.5)
ASKED, MOST = 0.05, 2_000


def normals(name):
    """Return the normals of a set; of the digits all but 0."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X[y > 0]
    arrays = data.load(f"adbench/{name}.npz")
    return arrays["X"][arrays["y"] == 0]


def with_gaps(X, share, rng):
    """Return X (n, d) with a share of its values missing, but no row without a value."""
    hidden = rng.random(X.shape) < share
    hidden[np.arange(len(X)), rng.integers(X.shape[1], size=len(X))] = False
    return np.where(hidden, np.nan, X)


def job(name, kind, seed):
    """Return the share of unlearned normals that alarms, by the share of hidden values."""
    rng = np.random.default_rng(seed)
    X = rng.permutation(normals(name)).astype(np.float32)
    learned, judged = (half[:MOST] for half in np.array_split(X, 2))
    start = time.process_time()
    config = Config(kind=kind, missing="impute", threshold={"fpr": ASKED}, seed=seed)
    version = train(None, learned, config)
    rates = {
        str(share): float(version.is_anomaly(with_gaps(judged, share, rng)).mean())
        for share in HIDDEN
    }
    return {"features": X.shape[1], "held": rates, "cpu": time.process_time() - start}


def main():
    parser = run_arguments(arguments(__doc__), KINDS)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    args = parser.parse_args()
    keys = [(n, k, s) for s in range(args.seeds) for k in args.arms for n in args.sets]
    kept = Runs.of(args)
    results = kept.run(job, keys, lambda run: f"{100 * run['held']['0.5']:.1f} % with half hidden")
    rows = []
    for kind in args.arms:
        for name in args.sets:
            runs = [run for key, run in results.items() if key[:2] == (name, kind)]
            if runs:
                rows.append(
                    {"set": name, "features": runs[0]["features"], "kind": kind, "seeds": len(runs)}
                    | {f"{100 * share:g} % hidden":
                       spread((100 * run["held"][str(share)] for run in runs), 1)
                       for share in HIDDEN}
                    | {"CPU s": float(np.mean([run["cpu"] for run in runs]))}
                )  # fmt: skip
    figures = with_keys(("set", "kind", "seed"), results)
    report("missing_values", rows, args.output, figures=figures)


if __name__ == "__main__":
    main()
