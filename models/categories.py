"""Categories: each word has a code that float32 holds exactly, and a slot in the model.

A row stores a word as its code: 24 bits of the word's BLAKE2b hash. A reader of rows therefore
needs no list of words, and an unknown word has a code too. The model sees a category as slots
(one-hot encoding): one slot is 1 and all others are 0. Each learned value has a slot. Some slots
are free for values that come later. The last slot, the open one, stands for all other values.
A column has at most MOST_SLOTS slots. If it has more values, those without a slot of their own
that occur at least twice share the slot before the open one. In such a column only values that
occur once, or never, have the open slot, so the model learns that the open slot is rare.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

OPEN = 0.0  # no word has this code: it marks a free slot and the open slot
LONGEST_WORD = 128  # characters
MOST_SLOTS = 256  # the most slots of one column
MOST_SHARED = 2**16  # the most values in the shared slots of all columns together
_FREE = 4  # a column gets one free slot for every four values of its first training
_MOST_FREE = 16


@functools.lru_cache(maxsize=65_536)
def code_of(word: str) -> float:
    """Return the code of a word: a whole number from 1 to 2**24 - 1.

    Two words may share a code, and then count as one value. Among 50 words this happens in 1 of
    14,000 columns.

    >>> code_of("idle") == code_of("idle") != code_of("running")
    True
    """
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=3).digest()
    return float(int.from_bytes(digest) or 1)


def codes(words: Sequence[str | None]) -> NDArray[np.float64]:
    """Return the code of each word, (n,); NaN for None."""
    known: Mapping[str | None, float] = {
        word: float("nan") if word is None else code_of(word) for word in set(words)
    }
    return np.array([known[word] for word in words], np.float64)


@dataclass(frozen=True, slots=True)
class Slots:
    """Maps features (n, w), some of them categories, to the numbers (n, e) of a model and back.

    The features that are numbers come first, in their order, then the slots of each category.
    `features` (c,) are the indices of the categories among the w features. `counts` is the number
    of slots of each category. `codes` (sum counts,) is the code of each slot, `OPEN` for a free
    slot and the open slot. Each row of `shared` (s, 2) is a category, 0 to c - 1, and the code of a
    value in its shared slot, which is the slot before the open one.
    """

    width: int
    features: tuple[int, ...]
    counts: tuple[int, ...]
    codes: Array
    shared: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))

    @classmethod
    def fit(cls, X: Array, features: Sequence[int]) -> Self:
        """Assign slots to the values of `features` in X (n, w), the most frequent value first."""
        counts, codes = [], []
        for feature in features:
            values = _most_frequent(X[:, feature])[: MOST_SLOTS - 1]
            free = min(_MOST_FREE, -(-len(values) // _FREE))
            counts.append(min(MOST_SLOTS, len(values) + free + 1))
            codes.append(np.pad(values, (0, counts[-1] - len(values))))
        slots = cls(X.shape[1], tuple(features), tuple(counts), np.concatenate(codes))
        return slots.with_shared_slot(X)

    def with_new_values(self, X: Array) -> Self:
        """Return the slots with the new values of X (n, w) in the free slots."""
        slot_codes = self.codes.copy()
        for feature, slots in zip(self.features, self._slices, strict=True):
            block = slot_codes[slots]
            new = [code for code in _most_frequent(X[:, feature]) if code not in block]
            free = np.flatnonzero(block[:-1] == OPEN)[: len(new)]
            block[free] = new[: len(free)]
        return replace(self, codes=slot_codes).with_shared_slot(X)

    def with_shared_slot(self, X: Array) -> Self:
        """Return the slots with more values in the shared slot of each full category.

        A category is full if it has MOST_SLOTS slots. A value is added if it occurs at least twice
        in X (n, w) and has no slot.
        """
        shared = [self.shared]
        for k, (feature, slots) in enumerate(zip(self.features, self._slices, strict=True)):
            if self.counts[k] == MOST_SLOTS:
                known = np.concatenate([self.codes[slots], self._sharing(k)])
                codes = np.setdiff1d(_most_frequent(X[:, feature], least=2), known)
                shared.append(np.stack([np.full(len(codes), k), codes.astype(np.int64)], axis=1))
        return replace(self, shared=np.concatenate(shared)[:MOST_SHARED])

    def _sharing(self, k: int) -> NDArray[np.int64]:
        """Return the codes of the values in the shared slot of category k, (s,)."""
        return self.shared[(self.shared[:, 0] == k) & (self.counts[k] == MOST_SLOTS), 1]

    @property
    def numbers(self) -> NDArray[np.intp]:
        """The indices of the features that are numbers, (m,)."""
        return np.setdiff1d(np.arange(self.width), self.features)

    @property
    def owners(self) -> NDArray[np.intp]:
        """The index of the feature that each number of the model belongs to, (e,)."""
        return np.concatenate([self.numbers, np.repeat(self.features, self.counts)]).astype(np.intp)

    def encode(self, X: Array) -> Array:
        """Return features X (n, w) as the model's numbers (n, e); all slots of a NaN are NaN."""
        numbers = self.numbers
        encoded = np.zeros((len(X), len(numbers) + len(self.codes)), np.float32)
        encoded[:, : len(numbers)] = X[:, numbers]
        for k, (feature, slots) in enumerate(zip(self.features, self._slices, strict=True)):
            values, slot_codes = X[:, feature], self.codes[slots]
            if len(shared := self._sharing(k)):
                values = np.where(np.isin(values, shared), slot_codes[-2], values)
            block = encoded[:, len(numbers) :][:, slots]
            block[:] = (values[:, None] == slot_codes) & (slot_codes != OPEN)
            block[:, -1] = ~block.any(axis=1)
            block[np.isnan(values)] = np.nan
        return encoded

    def decode(self, encoded: NDArray[Any]) -> Array:
        """Return the features (n, w) of numbers (n, e); a category takes its most likely value."""
        X = np.empty((len(encoded), self.width), np.float32)
        m = encoded.shape[1] - len(self.codes)
        X[:, self.numbers] = encoded[:, :m]
        for feature, slots in zip(self.features, self._slices, strict=True):
            slot_codes = self.codes[slots]
            X[:, feature] = slot_codes[self._likeliest_slots(encoded[:, m:][:, slots], slot_codes)]
        return X

    def valid(self, encoded: Array) -> Array:
        """Return the numbers (n, e) with exactly one slot set in each category.

        That slot is the one with the largest number among the slots that have a code.
        """
        encoded = encoded.copy()
        m = encoded.shape[1] - len(self.codes)
        for slots in self._slices:
            block = encoded[:, m:][:, slots]
            chosen = self._likeliest_slots(block, self.codes[slots])
            block[:] = 0.0
            block[np.arange(len(block)), chosen] = 1.0
        return encoded

    def _likeliest_slots(self, block: NDArray[Any], slot_codes: Array) -> NDArray[np.intp]:
        """Return the slot of a category with the largest number among slots with a code, (n,)."""
        return np.where(slot_codes != OPEN, block, -np.inf).argmax(axis=1)

    @property
    def _slices(self) -> list[slice]:
        """The slice of `codes` that belongs to each category."""
        return slot_slices(len(self.codes), self.counts)


def _most_frequent(values: Array, least: int = 1) -> Array:
    """Return the codes that occur at least `least` times in values (n,), most frequent first."""
    codes, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    used = (codes != OPEN) & (counts >= least)
    return codes[used][np.argsort(-counts[used], kind="stable")]


def slot_slices(dimension: int, counts: Sequence[int]) -> list[slice]:
    """Return the slice of the model's numbers that holds the slots of each category.

    >>> slot_slices(7, (2, 3))
    [slice(2, 4, None), slice(4, 7, None)]
    """
    if not counts:
        return []  # the usual case; a training calls this at every step
    ends = (dimension - sum(counts) + np.cumsum(counts)).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
