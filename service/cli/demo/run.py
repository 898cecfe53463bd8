"""The demonstration: nine handwritten digits are learned one after another, and none is forgotten.

The data are scikit-learn's 8x8 digits, sent as a client would send them. Digit 0 is the anomaly and
is never learned. Digits 1 to 9 arrive one at a time as normal batches. A retraining follows each.
Two detectors get the same rows: one learns by generative replay, the other by finetuning on the
newest digit only. After every retraining both score test rows that were never sent as normal.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from models import Version
from service.cli import console
from service.cli.demo import own_service, pictures
from service.cli.demo.table import Row, sentence, shown
from service.client import Client, Refused, ServiceError
from service.json_value import JsonObject

ANOMALY = 0
TASKS = range(1, 10)
TRAIN_ROWS = 1200  # the data has 1,797 rows
TARGET = 0.01  # the false-alarm rate that both detectors are asked to hold
_SWAP_SECONDS = 120.0  # promised are 2 s; a busy machine may take longer

# The two detectors differ in their strategy. The gate only reports: it would reject most versions
# of finetuning, and both detectors are to learn every digit.
ARMS: dict[str, JsonObject] = {
    "replay": {"strategy": "replay", "gate": "report"},
    "finetune": {"strategy": "finetune", "gate": "report"},
}
_BY_HAND = {"min_vectors": None, "max_age_seconds": None}


@dataclass(frozen=True, slots=True)
class Digits:
    """Train and test rows of each digit, (n, 64) float32 in 0..16."""

    train: dict[int, np.ndarray]
    test: dict[int, np.ndarray]

    @classmethod
    def split(cls, seed: int) -> "Digits":
        """Split the digits, every class in proportion."""
        X, y = load_digits(return_X_y=True)
        parts = train_test_split(
            X.astype(np.float32), y, train_size=TRAIN_ROWS, stratify=y, random_state=seed
        )
        X_train, X_test, y_train, y_test = parts
        return cls(
            {digit: X_train[y_train == digit] for digit in range(10)},
            {digit: X_test[y_test == digit] for digit in range(10)},
        )


def run(output: Path, url: str | None, seed: int, *, keep: bool, key: str | None = None) -> None:
    """Run the demonstration with the service at `url`, or with one that it starts.

    Pictures go to `output`. Raises ServiceError, or StartupFailed if no service starts.
    """
    start = time.monotonic()
    screen = Console()
    output.mkdir(parents=True, exist_ok=True)
    digits = Digits.split(seed)
    with contextlib.ExitStack() as stack:
        folder = None
        if url is None:
            folder = output / "data"
            if not keep:
                temporary = tempfile.TemporaryDirectory(prefix="anamnesis-demo-")
                folder = Path(stack.enter_context(temporary))
            url = stack.enter_context(own_service.running(folder, keep=keep))
        client = stack.enter_context(console.client(url, key))
        screen.print(
            f"Digit {ANOMALY} is the anomaly; digits {TASKS[0]} to {TASKS[-1]} arrive one after "
            f"another.\nService: {url}\n"
        )
        rows = list(shown(_learn_all(client, digits, seed), screen, TARGET))
        screen.print(f"\n{sentence(rows, TARGET)}\n")
        for picture in pictures.save(rows, output):
            screen.print(f"saved {picture}")
        screen.print(f"took {time.monotonic() - start:.0f} s")
        if keep and folder is not None:
            screen.print(own_service.how_to_use(url, folder))


def _learn_all(client: Client, digits: Digits, seed: int) -> Iterator[Row]:
    for arm, config in ARMS.items():
        with contextlib.suppress(Refused):
            # An earlier demonstration may have left the detectors. Without them this is refused.
            client.delete(_name(arm))
        client.create(
            _name(arm),
            # Each digit alarms before it is learned. Here that is not an incident for a person.
            {
                **config,
                "threshold": {"fpr": TARGET},
                "seed": seed,
                "retrain": _BY_HAND,
                "incident": None,
            },
        )
    for digit in TASKS:
        for arm in ARMS:
            yield _learn(client, digits, arm, digit)


def _name(arm: str) -> str:
    return f"digits-{arm}"


def _learn(client: Client, digits: Digits, arm: str, digit: int) -> Row:
    """Send one digit to one detector, retrain it, and measure its new champion."""
    name = _name(arm)
    client.learn(name, digits.train[digit], key=f"digit-{digit}")
    outcome: Any = client.retrain(name)
    if outcome is None or outcome["outcome"] == "failed":
        raise ServiceError(f"learning digit {digit} with {arm} came to nothing: {outcome}")
    number = outcome["version"]
    _wait_for_swap(client, name, number, digits.test[digit])
    record: Any = client.version(name, number)
    version = Version.from_bytes(client.artifact(name, number))
    learned = range(TASKS[0], digit + 1)
    verdicts = {d: client.score(name, digits.test[d]) for d in (ANOMALY, *learned)}
    alarms = {d: np.array(verdicts[d]["is_anomaly"]) for d in learned}
    normal = np.concatenate([verdicts[d]["scores"] for d in learned])
    anomalous = np.array(verdicts[ANOMALY]["scores"])
    truth = np.repeat([0, 1], [len(normal), len(anomalous)])
    return Row(
        digit=digit,
        arm=arm,
        version=number,
        w_prev=record["weights"]["w_prev"],
        w_new=record["weights"]["w_new"],
        seconds=outcome["seconds"],
        auroc=float(roc_auc_score(truth, np.concatenate([normal, anomalous]))),
        false_alarms={d: float(alarm.mean()) for d, alarm in alarms.items()},
        pooled=float(np.concatenate(list(alarms.values())).mean()),
        samples=version.sample(pictures.SAMPLES, seed=digit),
    )


def _wait_for_swap(client: Client, name: str, number: int, probe: np.ndarray) -> None:
    until = time.monotonic() + _SWAP_SECONDS
    while (served := client.score(name, probe[:1])["version"]) != number:
        if time.monotonic() > until:
            raise ServiceError(f"{name} still serves version {served}, not {number}")
        time.sleep(0.02)
