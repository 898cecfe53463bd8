"""How fast a version is learned.

There are four tables: the throughput, compared by turns with a plain torch loop over the same
networks and batches; the time to a first version, in the library and through the service; the
seconds and the memory of the k-th update, for replay and for joint; and the time that a warm start
saves and that early stopping would save, with the AUROC that is left.

    python -m benchmarks.train --output benchmarks/results/train.json
"""

import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import report, servers

SETTINGS = {
    "32 features, 1,000 vectors": (32, 1000, "gaussian"),
    "32 features, 8,000 vectors": (32, 8000, "gaussian"),
    "784 features, 1,000 vectors": (784, 1000, "bernoulli"),
}
TITLES = {
    "throughput": "beside a bare loop",
    "first": "the first version",
    "cost": "the k-th update",
    "savings": "warm start, and stopping early",
}
SHARES = (1.0, 0.5, 0.25)
ANOMALY = 0


def vectors(n, d, seed=0):
    """Return normals (n, d) in [0, 1] that have a structure to learn."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, 4)) @ np.random.default_rng(99).normal(size=(4, d))
    return (1.0 / (1.0 + np.exp(-mixed - 0.3 * rng.normal(size=(n, d))))).astype(np.float32)


def steps_of_this_project(previous, X, config, steps):
    """Return this project's steps a second, of all networks at once, after a warm-up."""
    from models import learn

    learning = learn(previous, X, config)
    for _ in range(20):
        next(learning)
    start = time.perf_counter()
    for _ in range(steps):
        next(learning)
    seconds = time.perf_counter() - start
    learning.close()
    return steps / seconds


def mlp(*sizes):
    from torch import nn

    layers = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def nll(likelihood, noise, x, y):
    """Return -log p(x) of each row, without its constant, from the decoder's output y."""
    import torch

    if likelihood == "bernoulli":
        each = torch.nn.functional.binary_cross_entropy_with_logits
        return each(y, x, reduction="none").sum(-1)
    return 0.5 * ((x - y).square() * (-noise).exp() + noise).sum(-1)


def steps_of_plain_loop(shape, batch_size, networks, steps, old=0):
    """Return the steps a second of a plain loop, which trains the networks one by one.

    `old` rows of a batch come with the previous version's outputs, which are learned too.
    """
    import torch
    from torch import nn

    d, k, hidden = shape.dimension, shape.latent, shape.hidden
    nll_of = partial(nll, shape.likelihood)
    models = []
    for _ in range(networks):
        encoder, decoder = mlp(d, *hidden, 2 * k), mlp(k, *reversed(hidden), d)
        noise = nn.Parameter(torch.zeros(d))
        parameters = [*encoder.parameters(), *decoder.parameters(), noise]
        models.append((encoder, decoder, noise, torch.optim.Adam(parameters, 1e-3, fused=True)))
    # These cost nothing here; this project's training draws its own.
    batches = [torch.rand(batch_size, d) for _ in range(50)]
    mean_0, log_variance_0, z_0, decoded_0 = (torch.rand(old, i) for i in (k, k, k, d))

    def step(x):
        for encoder, decoder, noise, optimiser in models:
            mean, log_variance = encoder(x).chunk(2, -1)
            z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
            loss = (nll_of(noise, x, decoder(z)) + kl).mean()
            if old:
                apart = log_variance_0.exp() + (mean[:old] - mean_0).square()
                spread = log_variance[:old]
                codes = 0.5 * (spread - log_variance_0 - 1 + apart * (-spread).exp()).sum(-1)
                loss = loss + (codes + nll_of(noise, decoded_0, decoder(z_0))).sum() / len(x)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    for x in batches[:10]:
        step(x)
    start = time.perf_counter()
    for i in range(steps):
        step(batches[i % 50])
    return steps / (time.perf_counter() - start)


def throughput(rounds):
    """Return a row for each setting and a row for its retraining; ratios are medians of rounds."""
    from models import Config, Model, train

    rows = []
    for name, (d, n, likelihood) in SETTINGS.items():
        config = Config(score="elbo", model=Model(likelihood=likelihood))
        X, steps = vectors(n, d), 300 if d < 100 else 60
        quick = Config(score="elbo", model=Model(likelihood=likelihood, epochs=1))
        first = train(None, X, quick)
        about = first.lineage.training
        for how, previous in (("first", None), ("replay", first)):
            # As many vectors were learned before as are new.
            old = about.batch_size // 2 if previous else 0
            plainly = (first.network.shape, about.batch_size, about.networks, steps, old)
            pairs = [
                (steps_of_this_project(previous, X, config, steps), steps_of_plain_loop(*plainly))
                for _ in range(rounds)
            ]
            rate, plain = (statistics.median(side) for side in zip(*pairs, strict=True))
            rows.append(
                {
                    "training": name,
                    "how": how,
                    "networks": about.networks,
                    "batch": about.batch_size,
                    "steps/s": rate,
                    "rows/s": rate * about.batch_size * about.networks,
                    "bare steps/s": plain,
                    "x bare": statistics.median(a / b for a, b in pairs),
                }
            )
    return rows


def first_version(rounds):
    """Return the seconds until 1,000 vectors of 32 features have become a version."""
    from models import train

    X = vectors(1000, servers.DIMENSION)
    alone = []
    for _ in range(rounds):
        start = time.perf_counter()
        version = train(None, X)
        alone.append(time.perf_counter() - start)
    with (
        tempfile.TemporaryDirectory(prefix="anamnesis-") as name,
        servers.everything(Path(name), version.to_bytes()) as server,
    ):
        through = [as_a_user(server, f"/v1/detectors/new-{i}", X) for i in range(rounds)]
    rows = {"train(None, X)": alone, "POST normal, retrain, first version": through}
    return [
        {"first version": name, "median s": statistics.median(seconds), "best s": min(seconds)}
        for name, seconds in rows.items()
    ]


def as_a_user(server, path, X):
    """Return the seconds from sending the vectors until the champion serves."""
    server.call("PUT", path, json.dumps({"dimension": X.shape[1]}).encode())
    start = time.perf_counter()
    server.call("POST", f"{path}/normal", X.tobytes(), servers.OCTETS)
    server.call("POST", f"{path}/retrain", b'{"wait": 120}')
    assert server.call("GET", path)["champion"] == 1
    return time.perf_counter() - start


def cost_of_updates(updates, n_new):
    """Return one row for each update of replay and of joint, at constant n_new."""
    from models import Config, train

    rows = []
    for strategy in ("replay", "joint"):
        version = None
        for k in range(1, updates + 1):
            reset_peak()
            start = time.perf_counter()
            version = train(version, vectors(n_new, servers.DIMENSION, seed=k),
                            Config(score="elbo", strategy=strategy))  # fmt: skip
            rows.append(
                {
                    "strategy": strategy,
                    "k": k,
                    "seconds": time.perf_counter() - start,
                    "peak MiB": peak(),
                    "artifact KiB": len(version.to_bytes()) / 2**10,
                    "steps": version.lineage.training.steps,
                }
            )
    return rows


def reset_peak():
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak():
    """Return the peak of the resident memory since the last reset, MiB; 0 if there is no /proc."""
    if not Path("/proc/self/status").exists():
        return 0.0
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    return int(line.split()[1]) / 2**10


@contextmanager
def shorter_training(share, *, warm=True, decayed=True):
    """Train for a `share` of the steps.

    The learning rate decays within these steps if `decayed`. Otherwise it is that of the first
    steps of a whole training, as with early stopping.
    """
    from models.strategies import past
    from models.training import autoencoder as training

    # No setting changes the steps, the rate or the start, so the functions are replaced.
    plan, rate, replay = training.plan, training._rate_factor, past.PASTS["replay"]  # noqa: SLF001

    def shorter(*args):
        chosen = plan(*args)
        return replace(chosen, steps=max(int(share * chosen.steps), 1))

    def cold(previous, config):
        return replace(replay(previous, config), warm=False)

    training.plan = shorter
    training._rate_factor = rate if decayed else lambda done: rate(share * done)  # noqa: SLF001
    past.PASTS["replay"] = replay if warm else cold
    try:
        yield
    finally:
        training.plan, past.PASTS["replay"] = plan, replay
        training._rate_factor = rate  # noqa: SLF001


def short_trainings(tasks, seeds):
    """Return AUROC and seconds for scikit-learn's digits, by start and share of steps."""
    from models import Config, train
    from models.parts.statistics import auroc
    from service.cli.demo.run import Digits

    kinds = {
        "warm": {},
        "cold": {"warm": False},
        "warm, stopped early": {"decayed": False},
    }
    rows = []
    for kind, options in kinds.items():
        for share in SHARES:
            if kind == "warm, stopped early" and share == 1.0:
                continue
            finals, seconds = [], []
            for seed in range(seeds):
                digits, version = Digits.split(seed), None
                start = time.perf_counter()
                with shorter_training(share, **options):
                    for digit in range(1, tasks + 1):
                        config = Config(score="elbo", seed=seed)
                        version = train(version, digits.train[digit], config)
                seconds.append(time.perf_counter() - start)
                normal = np.concatenate([digits.test[i] for i in range(1, tasks + 1)])
                finals.append(auroc(version.score(normal), version.score(digits.test[ANOMALY])))
            rows.append(
                {
                    "start": kind,
                    "share of steps": share,
                    "AUROC": float(np.mean(finals)),
                    "sd": float(np.std(finals)),
                    "s for all": statistics.median(seconds),
                }
            )
    return rows


def draw(rows, path):
    """Draw what the k-th update costs: seconds and peak memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    labels = {"seconds": "seconds", "peak MiB": "peak memory, MiB", "artifact KiB": "version, KiB"}
    for axes, (name, label) in zip(figure.subplots(1, 3), labels.items(), strict=True):
        for strategy in dict.fromkeys(row["strategy"] for row in rows):
            runs = [row for row in rows if row["strategy"] == strategy]
            axes.plot([row["k"] for row in runs], [row[name] for row in runs], label=strategy)
        axes.set(xlabel="update", ylabel=label, ylim=(0, None))
        axes.legend()
    figure.savefig(path, dpi=120)


def main():
    parser = report.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--vectors", type=int, default=300, help="new vectors in each update")
    parser.add_argument("--tasks", type=int, default=5, help="digits that are learned one by one")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=("throughput", "first", "cost", "savings"))
    parser.add_argument("--quick", action="store_true", help="throughput and first version")
    args = parser.parse_args()
    wanted = args.only or ("throughput", "first", "cost", "savings")
    if args.quick:
        wanted, args.rounds = ("throughput", "first"), 3
    if any(os.environ.get(name) != value for name, value in servers.ONE_THREAD.items()):
        # numpy reads these variables when it is loaded, so the program is started again.
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **servers.ONE_THREAD})
    import torch

    torch.set_num_threads(1)
    tables = {}
    if "throughput" in wanted:
        tables["throughput"] = throughput(args.rounds)
    if "first" in wanted:
        tables["first"] = first_version(args.rounds)
    if "cost" in wanted:
        tables["cost"] = cost_of_updates(args.updates, args.vectors)
    if "savings" in wanted:
        tables["savings"] = short_trainings(args.tasks, args.seeds)
    name, rows = next(iter(tables.items()))
    further = {TITLES[title]: others for title, others in tables.items() if title != name}
    report.report(f"Training: {TITLES[name]}", rows, args.output, further)
    if args.output is not None and "cost" in tables:
        draw(tables["cost"], args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
