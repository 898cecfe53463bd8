"""Learn nine small digits one after another and measure the forgetting of each, arm by arm.

This is the protocol of `continual_mnist` on the demonstration's data: scikit-learn's 8x8 digits,
which need no download. Every seed splits them anew.

    python -m benchmarks.continual_digits --output benchmarks/results/digits.json
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is loaded
from benchmarks.arms import learner
from benchmarks.continual import bench, nine_digits
from service.cli.demo.run import Digits


def job(arm, seed):
    """Learn all digits with one arm and one seed; return the measurements."""
    digits = Digits.split(seed)
    return nine_digits(learner(arm, seed), digits.train, digits.test)


def main():
    bench("continual_digits", __doc__, lambda _: job, names=range(1, 10))


if __name__ == "__main__":
    main()
