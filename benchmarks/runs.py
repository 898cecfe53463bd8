"""Many measurements, each saved at once, so that a stopped run can continue.

A measurement is a function of its key (for example an arm and a seed) that returns JSON-able
values. Each is saved in its own file and not repeated while the options are the same. Each file
records the state of the learning code that made it; `states` counts these states.
"""

import argparse
import hashlib
import json
import os
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


def arguments(parser, arms, seeds=3):
    """Add the options that all of these benchmarks have."""
    parser.add_argument("--seeds", type=int, default=seeds, help=f"repetitions ({seeds})")
    parser.add_argument(
        "--arms", nargs="+", choices=arms, default=list(arms), metavar="ARM",
        help="some of: " + "; ".join(arms),
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=None, help="processes, of one thread each")
    parser.add_argument("--fresh", action="store_true", help="repeat measurements that are saved")
    parser.add_argument(
        "--done", action="store_true", help="measure nothing; report the saved measurements"
    )
    return parser


@dataclass(frozen=True)
class Runs:
    """The saved measurements and their options.

    `folder` gets one JSON file for each measurement; None saves none. `options` are everything on
    which a measurement depends beside its key. `fresh` repeats all measurements; `done` makes none.
    """

    folder: Path | None
    options: dict
    workers: int | None = None
    fresh: bool = False
    done: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace, **options) -> "Runs":
        """Return the runs that parsed `arguments` ask for, kept beside `--output`."""
        folder = args.output.with_suffix("") if args.output else None
        return cls(folder, options, args.workers, args.fresh, args.done)

    def run(self, job, keys, describe):
        """Return {key: job(*key)}, in the order of `keys`, and print the progress to stderr.

        `describe(result)` returns a result in a few words.
        """
        kept = {} if self.fresh else {key: self._kept(key) for key in keys}
        results = {key: result for key, result in kept.items() if result is not None}
        left = [] if self.done else [key for key in keys if key not in results]
        start = time.perf_counter()
        # A single job gets all cores, unless `--workers` is given: on a busy machine threads
        # that wait for each other take twice the time.
        cores = os.cpu_count() or 1
        threads = 1 if self.workers else cores // max(1, min(cores, len(left)))
        with ProcessPoolExecutor(
            self.workers, initializer=few_threads, initargs=(threads,)
        ) as pool:
            running = {pool.submit(job, *key): key for key in left}
            for i, future in enumerate(as_completed(running), start=1):
                key = running[future]
                results[key] = result = future.result()
                self._keep(key, result)
                names = ", ".join(map(str, key))
                seconds = time.perf_counter() - start
                print(f"[{i}/{len(left)}, {seconds:.0f} s] {names}: {describe(result)}",
                      file=sys.stderr, flush=True)  # fmt: skip
        return {key: results[key] for key in keys if key in results}

    def states(self, keys):
        """Return how many states of the learning's code the kept measurements come from."""
        files = [self.path(key, ".json") for key in keys]
        return len({json.loads(p.read_text())["code"] for p in files if p and p.exists()})

    def path(self, key, suffix):
        """Return the file of a key; None if there is no folder to save in."""
        if self.folder is None:
            return None
        name = ".".join(re.sub(r"[^a-z0-9]+", "-", str(part).lower()).strip("-") for part in key)
        return self.folder / (name + suffix)

    def _kept(self, key):
        path = self.path(key, ".json")
        if path is None or not path.exists():
            return None
        kept = json.loads(path.read_text())
        return kept["result"] if kept["options"] == self.options else None

    def _keep(self, key, result):
        path = self.path(key, ".json")
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = {"key": key, "options": self.options, "code": self._code, "result": result}
            partial = path.with_suffix(".part")
            partial.write_text(json.dumps(kept) + "\n")
            partial.replace(path)

    @cached_property
    def _code(self):
        digest = hashlib.sha256()
        for path in sorted((Path(__file__).parents[1] / "models").rglob("*.py")):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]


def runs_of_arm(results, arm):
    """Return the results of one arm, from results by (arm, seed)."""
    return [result for (name, _), result in results.items() if name == arm]


def with_keys(names, results):
    """Return each result, a dict, joined with the parts of its key, which are called `names`."""
    return [dict(zip(names, key, strict=True)) | result for key, result in results.items()]


def few_threads(threads):
    """Compute networks on one core if there are many jobs: threads would wait for each other."""
    import torch

    torch.set_num_threads(max(1, threads))
