"""Learn nine MNIST digits one after another, by every strategy and by the literature's methods.

The protocol of Wiewel & Yang (ICASSP 2019): digit 0 is the anomaly, digits 1 to 9 arrive one at
a time; after task i the test images of 0 are ranked against those of 1 to i (AUROC). Training
images are the first 10,000 of a seeded shuffle, test images the official ones.

    ANAMNESIS_DATA=data python -m benchmarks.continual_mnist --output benchmarks/results/mnist.json
"""

import os
from functools import partial

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
import numpy as np

from benchmarks import data
from benchmarks.arms import learner
from benchmarks.continual import bench, nine_digits
from benchmarks.pictures import grids
from benchmarks.report import spread, table
from benchmarks.runs import runs_of_arm
from models.parts.statistics import auroc
from models.scores.by_name import score_arrays, score_named, score_rows

SHOWN = ("replay", "joint", "finetune")
RESCORED = ("replay", "joint")  # arms whose networks are measured by other scores too
SCORES = ("elbo", "fitted", "hidden", "neighbours")  # the others take a minute for each digit
COLUMNS = 10  # images in a row of a grid
BRIGHTEST = 255.0


def job(images, folder, arm, seed):
    """Learn all digits with one arm; for some arms, also measure other scores and draw pictures."""
    train, test = data.digits(images, seed)
    examples = np.stack([test[digit][0] for digit in range(10)])  # (10, 784)
    drawn, rescored = [], {score: [] for score in SCORES if arm in RESCORED}

    def watch(model):
        if arm in SHOWN and not seed:
            drawn.append(
                (reconstructions(model.version, examples), model.version.sample(COLUMNS, seed=0))
            )
        if not rescored:
            return
        learned = np.concatenate([test[digit] for digit in range(1, model.experiences + 1)])
        for score, values in rescored.items():
            scores = score_by(score, model.version)
            values.append(auroc(scores(learned), scores(test[0])))

    results = nine_digits(learner(arm, seed), train, test, watch)
    if drawn and folder is not None:
        reconstructions, samples = (np.stack(part) for part in zip(*drawn, strict=True))
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(folder / f"{arm}.npz", reconstructions=reconstructions, samples=samples)
    return results | {"scores": rescored}


def score_by(score, version):
    """Return a function of X (n, d): another score than the version's own, (n,)."""
    parts = version.network, version.latents
    other = score_named(score, *parts, score_arrays(score, *parts, version.lineage.seed))
    return lambda X: score_rows(other, version.scaler.transform(X))


def by_score(measured):
    """Return a line for each arm and score measured on the same networks: mean and final AUROC."""
    scores = {arm: [run["scores"] for run in runs_of_arm(measured, arm)] for arm in RESCORED}
    return [
        {
            "arm": arm,
            "score": score,
            "AUROC mean": spread(np.mean(run[score]) for run in scores[arm]),
            "final": spread(run[score][-1] for run in scores[arm]),
        }
        for arm in RESCORED
        for score in (SCORES if scores[arm] else ())
    ]


def reconstructions(version, X):
    """Return the network's reconstruction of each row of X (n, d), in the units of X."""
    _, _, decoded = version.network.losses(version.scaler.transform(X))
    return version.scaler.inverse(decoded)


def show(folder, path):
    """Draw reconstructions and generated images of each shown arm after each digit."""
    panels = {}
    for arm in SHOWN:
        if (folder / f"{arm}.npz").exists():
            with np.load(folder / f"{arm}.npz", allow_pickle=False) as kept:
                for part in ("reconstructions", "samples"):
                    panels[f"{arm}: {part}"] = np.clip(kept[part] / BRIGHTEST, 0, 1)
    if panels:
        grids(panels, width=28, path=path)


def options(parser):
    """Add how much is learned."""
    parser.add_argument("--images", type=int, default=10_000, help="training images (10000)")


def main():
    args, kept, measured = bench(
        "continual_mnist",
        __doc__,
        lambda args: partial(job, args.images, args.output and args.output.with_suffix("")),
        names=range(1, 10),
        more=options,
    )
    if lines := by_score(measured):
        print(f"\nThe same networks by other scores\n\n{table(lines)}")
    if args.output:
        show(kept.folder, args.output.with_name(f"{args.output.stem}_grids.png"))


if __name__ == "__main__":
    main()
