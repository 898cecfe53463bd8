"""The benchmarks' data: the folder that ANAMNESIS_DATA names, by default `data/`."""

import os
from functools import cache
from pathlib import Path

import numpy as np

_SOURCES = {
    "mnist.npz": "the MNIST digits (pixels as 28x28 bytes); scikit-learn fetches them",
    "nsl_kdd.npz": "NSL-KDD, words as ones and zeros: ddrogers/R-intrusion-detection-demo",
    "pyclad_nsl_kdd_r.npz": "the NSL-KDD-R example of https://github.com/lifelonglab/pyCLAD",
    "adbench": "the classical sets of https://github.com/Minqi824/ADBench",
    "smd_a.npz": "two servers of the Server Machine Dataset, "
    "https://github.com/NetManAIOps/OmniAnomaly",
    "skab.npz": "the Skoltech benchmark, https://github.com/waico/SKAB",
    "oddbench_dev.npz": "60 tables of OddBench, psorus/Outformer, benchmarks/oddbench",
    "nab_a.npz": "series of the Numenta benchmark, https://github.com/numenta/NAB",
}


def folder():
    """Return the folder that holds the data sets."""
    return Path(os.environ.get("ANAMNESIS_DATA", Path(__file__).parents[1] / "data"))


def load(name):
    """Return the arrays of one file; if it is missing, raise SystemExit that names its source."""
    path = folder() / name
    if not path.exists():
        raise SystemExit(missing_file(name))
    with np.load(path, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def missing_file(name):
    """Return the error that a file is missing, with its source."""
    return f"{folder() / name} is not there. Its source: {_SOURCES[Path(name).parts[0]]}."


@cache
def mnist():
    """Return X_train (60000, 784), y_train, X_test (10000, 784), y_test; X float32 in 0..255."""
    if (folder() / "mnist.npz").exists():
        arrays = load("mnist.npz")
        parts = [arrays[name] for name in ("X_train", "y_train", "X_test", "y_test")]
    else:
        from sklearn.datasets import fetch_openml

        try:
            X, y = fetch_openml("mnist_784", return_X_y=True, as_frame=False)
        except OSError as error:
            raise SystemExit(
                f"{missing_file('mnist.npz')} scikit-learn failed to fetch them: {error}"
            ) from error
        parts = [X[:60_000], y[:60_000], X[60_000:], y[60_000:]]
    flat = [part.reshape(len(part), -1) for part in parts]
    X_train, y_train, X_test, y_test = flat
    return (
        X_train.astype(np.float32), y_train.ravel().astype(int),
        X_test.astype(np.float32), y_test.ravel().astype(int),
    )  # fmt: skip


def digits(images, seed):
    """Return (train, test): MNIST by digit, {digit: (n, 784)}.

    Training images are the first `images` of a seeded shuffle, test images the official ones.
    """
    X_train, y_train, X_test, y_test = mnist()
    order = np.random.default_rng(seed).permutation(len(X_train))[:images]
    X_train, y_train = X_train[order], y_train[order]
    return (
        {digit: X_train[y_train == digit] for digit in range(10)},
        {digit: X_test[y_test == digit] for digit in range(10)},
    )
