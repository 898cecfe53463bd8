"""How many steps the mixture that replay draws from is fitted with, and what more would bring.

On ADBench's sets, split as `benchmarks/tabular.py` splits them: a version learns half of the
normals, the mixture is fitted to their codes, and the figure is the mean log density, in nats, of
the codes of the other half, which decides what is replayed. Beside it scikit-learn's
`GaussianMixture` of as many modes with a tolerance of .01, and the seconds of each fit.

    ANAMNESIS_DATA=data python benchmarks/mixture.py --output benchmarks/results/mixture.json
"""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from sklearn.mixture import GaussianMixture

from benchmarks import data, tabular
from benchmarks.report import arguments, report
from models import Config, latents, train
from models.finish import MAX_CODES
from models.latents import RIDGE, Density, Mixture
from models.network import posterior_codes

STEPS = (1, 2, 3, 5, 10, 20)
LIBRARY = "scikit-learn"


def codes(name, seed):
    """Return codes of normals that were learned and of others, (n, k) and (m, k)."""
    learned, others, _ = tabular.split(name, seed, 2 * MAX_CODES)
    version = train(None, learned[:MAX_CODES], Config(seed=seed))
    rng = np.random.default_rng(seed)
    return [
        posterior_codes(*version.network.encode(version.scaler.transform(X[:MAX_CODES])), rng)
        for X in (learned, others)
    ]


def ours(z, seed, steps):
    """Return a function that gives log densities, (n,) nats, under a mixture fitted to z (n, k)."""
    latents.STEPS = steps
    return Density(Mixture.fit(z, seed)).log


def theirs(z, seed, modes):
    """Return the same for scikit-learn's fit."""
    fitted = GaussianMixture(
        modes, reg_covar=RIDGE, max_iter=100, tol=1e-2, init_params="k-means++", random_state=seed
    )
    return fitted.fit(z.astype(np.float64)).score_samples


def fits(z, others, seed):
    """Return {how: (nats, seconds)} of every way to fit a mixture to z (n, k)."""
    modes = len(Mixture.fit(z, seed).weights)
    ways = {steps: (ours, steps) for steps in STEPS} | {LIBRARY: (theirs, modes)}
    found = {}
    for way, (fit, argument) in ways.items():
        start = time.perf_counter()
        density = fit(z, seed, argument)
        seconds = time.perf_counter() - start
        found[way] = (float(density(others).mean()), seconds)
    return found


def main():
    """Measure and report."""
    parser = arguments(__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (3)")
    given = parser.parse_args()
    lines, everything = [], []
    for name in sorted(path.stem for path in (data.folder() / "adbench").glob("*.npz")):
        found = [fits(*codes(name, seed), seed) for seed in range(given.seeds)]
        everything += found
        lines.append({"set": name} | _means(found, 0))
        print(name, flush=True, file=sys.stderr)
    lines.append({"set": "mean"} | _means(everything, 0))
    report("mixture", lines, given.output, {"seconds of a fit": [_means(everything, 1)]})


def _means(found, which):
    return {str(way): float(np.mean([one[way][which] for one in found])) for way in found[0]}


if __name__ == "__main__":
    main()
