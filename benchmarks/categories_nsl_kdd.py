"""NSL-KDD with its three words as categories, and with 81 columns of ones and zeros instead.

A version learns normals of the training set and judges rows of the test set, at 1 % asked.
`recall` is the share of the anomalies that alarm, `held` that of the normals. Then the service of
200 test normals is replaced by the rarest learned one. `rare service alarms` is the share of these
rows that alarm. `names the service first` is the share of them whose explanation begins with the
service. With ones and zeros, each column of the service counts.

    ANAMNESIS_DATA=data python -m benchmarks.categories_nsl_kdd --seeds 3 --rows 3000
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np

from benchmarks import data
from benchmarks.report import parser_of, table
from models import Config, train
from models.columns import Column
from models.parts.statistics import auroc

WORDS = ("protocol_type", "service", "flag")
TESTED = 4000
CHANGED = 200


class Table:
    """Columns by name, as a DataFrame has them."""

    def __init__(self, columns):
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name):
        return self._columns[name]


def encoded(X, names, form):
    """Return rows X (n, 119) in a form: `ones` as they are, `categories` as a table of words."""
    if form == "ones":
        return X
    columns = {name: X[:, j] for j, name in enumerate(names) if "=" not in name}
    for word in WORDS:
        slots = [j for j, name in enumerate(names) if name.startswith(f"{word}=")]
        values = np.array([names[j].partition("=")[2] for j in slots])
        columns[word] = values[X[:, slots].argmax(axis=1)]
    return Table(columns)


def config_of(names, form, kind, seed):
    """Return the config for rows in a form."""
    if form == "ones":
        return Config(features=tuple(names), kind=kind, seed=seed)
    columns = [Column(name) for name in names if "=" not in name]
    columns += [Column(word, "category") for word in WORDS]
    return Config(columns=tuple(columns), kind=kind, seed=seed)


def with_service(X, names, service):
    """Return rows with another service."""
    X = X.copy()
    X[:, [j for j, name in enumerate(names) if name.startswith("service=")]] = 0.0
    X[:, names.index(f"service={service}")] = 1.0
    return X


def figures_of(arrays, form, kind, seed, rows):
    """Return the figures of one version."""
    names = [str(name) for name in arrays["feature_names"]]
    rng = np.random.default_rng(seed)
    normals = arrays["X_train"][arrays["y_train"] == 0]
    new = normals[rng.permutation(len(normals))[:rows]]
    tested = rng.permutation(len(arrays["X_test"]))[:TESTED]
    X, y = arrays["X_test"][tested], arrays["y_test"][tested]
    version = train(None, encoded(new, names, form), config_of(names, form, kind, seed))
    judged = version.judge(encoded(X, names, form))
    services = [name for name in names if name.startswith("service=")]
    seen = [new[:, names.index(name)].sum() for name in services]
    rare = min((n, name) for n, name in zip(seen, services, strict=True) if n)[1].partition("=")[2]
    changed = encoded(with_service(X[y == 0][:CHANGED], names, rare), names, form)
    first = [row[0].feature for row in version.explain(changed, 1)]
    return {
        "AUROC": auroc(judged.scores[y == 0], judged.scores[y == 1]),
        "recall": judged.is_anomaly[y == 1].mean(),
        "held": judged.is_anomaly[y == 0].mean(),
        "rare": version.is_anomaly(changed).mean(),
        "named": np.mean([name.partition("=")[0] == "service" for name in first]),
    }


def line(kind, form, figures):
    """Return a line of the table from the figures of each seed."""

    def percent(name):
        return float(100 * np.mean([of_seed[name] for of_seed in figures]))

    aurocs = [of_seed["AUROC"] for of_seed in figures]
    return {
        "kind": kind,
        "words as": form,
        "AUROC": float(np.mean(aurocs)),
        "by seed": " ".join(f"{value:.4f}" for value in aurocs),
        "recall %": percent("recall"),
        "held %": percent("held"),
        "rare service alarms %": percent("rare"),
        "names the service first %": percent("named"),
    }


def main():
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=3000, help="normals that are learned")
    parser.add_argument("--kinds", nargs="+", default=["vae", "mahalanobis"])
    args = parser.parse_args()
    arrays = data.load("nsl_kdd.npz")
    lines = []
    for kind in args.kinds:
        for form in ("ones", "categories"):
            seeds = range(args.seeds)
            figures = [figures_of(arrays, form, kind, seed, args.rows) for seed in seeds]
            lines.append(line(kind, form, figures))
            print(f"{kind}, {form}: done", file=sys.stderr, flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
