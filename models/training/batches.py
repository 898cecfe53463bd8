"""The batch of each gradient step: old rows, new rows, and the teacher's answers on old rows."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from models.arrays import Array
from models.strategies.distillation import teacher_answers
from models.strategies.past import Past
from models.training import mixing
from models.training.plan import Plan
from models.vae.gradient import TeacherAnswers
from models.version.version import Version

CHUNK = 1024  # old vectors drawn at a time: enough for a fast matrix product, few for the cache


def batches(
    chosen: Plan, past: Past, x: Array, rng: np.random.Generator
) -> Iterator[tuple[Tensor, int, TeacherAnswers | None]]:
    """Yield each step's batch (M, n_prev + n_new, d), n_prev, and answers, epoch after epoch.

    The answers are those of the past's teacher on the first of the old vectors; None without a
    teacher. All M networks get the same old vectors; each network gets its own new ones.
    """
    rows = [np.flatnonzero(~chosen.left_out(m)) for m in range(chosen.networks)]
    n = len(rows[0])
    with_answers = _OldVectors(past, past.teacher, x[:0], rng)
    without_answers = _OldVectors(past, None, x[:0], rng)
    while True:
        # Each network draws n rows per epoch; one with fewer rows draws some of them twice.
        order = np.stack([np.resize(rng.permutation(learned), n) for learned in rows])  # (M, n)
        taken = 0
        for n_prev, n_new in mixing.counts(n, chosen.batch_size, chosen.new_rows):
            batch, answers = x[order[:, taken : taken + n_new]], None
            if n_prev:
                # Each answer costs every network one more pass through its decoder. Answers on at
                # most half a batch of rows therefore represent all old rows.
                answered = min(n_prev, (n_prev + n_new + 1) // 2) if past.teacher else 0
                first, answers = with_answers.draw(answered)
                old = np.concatenate([first, without_answers.draw(n_prev - answered)[0]])
                answers = answers and answers._replace(weight=n_prev / answered)
                batch = np.concatenate([np.broadcast_to(old, (len(rows), *old.shape)), batch], 1)
            taken += n_new
            yield torch.from_numpy(batch), n_prev, answers


class _OldVectors:
    """Draws old vectors in chunks: one large decoder pass is faster than many small ones."""

    def __init__(
        self, past: Past, teacher: Version | None, empty: Array, rng: np.random.Generator
    ) -> None:
        self._generator, self._exemplars = past.generator, past.exemplars
        self._teacher, self._rng = teacher, rng
        self._drawn, self._used = empty, 0
        self._answers: TeacherAnswers | None = None

    def draw(self, n: int) -> tuple[Array, TeacherAnswers | None]:
        """Return the next n vectors (n, d), no generated one twice, and the answers on them."""
        if self._used + n > len(self._drawn):
            self._drawn, self._used = self._chunk(max(n, CHUNK)), 0
            if self._teacher is not None:
                self._answers = teacher_answers(self._teacher, self._drawn, self._rng)
        rows = slice(self._used, self._used + n)
        self._used += n
        return self._drawn[rows], self._answers and self._answers.rows(rows)

    def _chunk(self, n: int) -> Array:
        """Draw n old vectors, (n, d), from the generator, from the exemplars, or half from each."""
        if self._exemplars is None:
            assert self._generator is not None  # a past that replays has one or the other
            return self._generator.draw(n, self._rng)
        picked: Array = self._exemplars[self._rng.integers(len(self._exemplars), size=n)]
        if self._generator is not None:
            generated = self._rng.random(n) < 0.5
            picked[generated] = self._generator.draw(int(generated.sum()), self._rng)
        return picked
