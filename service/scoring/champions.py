"""Holds the loaded versions: each detector's champion, and the latest pinned versions."""

from collections import OrderedDict
from collections.abc import Iterable

from models import MIN_VECTORS
from service.domain.champion import Champion, LoadedVersion, ServingOptions
from service.domain.detector import Detector, Pointer
from service.domain.detector_config import configured
from service.domain.inline_bounds import WIDEST, InlineBounds
from service.problems import NoVersion, StoreUnavailable, UnknownDetector


class Champions:
    """The versions that one API process holds in memory. A swap is one assignment in a dict.

    With `loaded_bytes`, champions are loaded on demand. If the champions take more memory than
    `loaded_bytes`, the least recently used ones are unloaded.
    """

    def __init__(self, pinned_loaded: int, loaded_bytes: int | None = None) -> None:
        self._champions: dict[str, Champion] = {}
        self.loaded_bytes = 0  # memory that the champions take, estimated
        self._detectors: dict[str, Detector] = {}
        self._pinned: OrderedDict[tuple[str, str, int], Champion] = OrderedDict()
        self._pinned_loaded = pinned_loaded
        self._most_bytes = loaded_bytes
        self.templates: frozenset[str] = frozenset()  # the templates that the store listed last
        self._refused: dict[str, Pointer] = {}  # detectors whose champion could not be loaded
        self._used: OrderedDict[str, None] = OrderedDict()  # least recently used first

    def serving(self, name: str) -> Champion:
        """Return the champion of `name`. Raises UnknownDetector, NoVersion or StoreUnavailable."""
        champion = self._champions.get(name)
        if champion is not None:
            return champion
        detector = self._detectors.get(name)
        if detector is None:
            raise UnknownDetector()
        needed = max(detector.config.retrain.min_vectors or MIN_VECTORS, MIN_VECTORS)
        why = (
            f"There is no version yet: {detector.buffered} normal vectors are buffered, "
            f"{needed} are needed ({MIN_VECTORS} for a retraining by hand)."
        )
        if detector.champion is not None:
            refused = self._refused.get(name) == detector.pointer
            if self.on_demand and not refused:
                raise StoreUnavailable(
                    "The champion is not in memory, and it could not be loaded. Try again."
                )
            why = f"The champion, version {detector.champion}, " + (
                "cannot be loaded: its artifact is damaged. Promote another version."
                if refused
                else "is not loaded yet. Try again in a moment."
            )
        raise NoVersion(why, buffered=detector.buffered, needed=needed)

    def get(self, name: str) -> Champion | None:
        """Return the champion of `name`, or None if none is loaded."""
        return self._champions.get(name)

    def detector(self, name: str) -> Detector | None:
        """Return the latest known state of detector `name` in the store, or None."""
        return self._detectors.get(name)

    def detectors(self) -> list[Detector]:
        """Return the latest known state of every detector in the store."""
        return list(self._detectors.values())

    def lags(self, name: str, pointer: Pointer, *, demanded: bool = False) -> bool:
        """Return whether this process still has to load the champion that `pointer` names.

        If champions are loaded on demand and this detector has none in memory, return `demanded`.
        """
        champion = self._champions.get(name)
        if pointer.champion is None:
            return False
        if champion is None:
            return demanded or not self.on_demand
        return champion.pointer != pointer

    def loaded(self) -> list[Champion]:
        """Return every champion in memory."""
        return list(self._champions.values())

    def note(self, detector: Detector) -> None:
        """Remember the state of a detector that was read from the store."""
        self._detectors[detector.name] = detector

    def refuse(self, detector: Detector) -> None:
        """Remember that the champion of `detector` cannot be loaded."""
        self._refused[detector.name] = detector.pointer

    def install(self, champion: Champion) -> bool:
        """Serve `champion` from now on and return True; return False if a newer one serves."""
        before = self._champions.get(champion.name)
        if not champion.supersedes(before):
            return False
        self._champions[champion.name] = champion
        self.loaded_bytes += champion.bytes - (before.bytes if before else 0)
        self._refused.pop(champion.name, None)
        self.touch((champion.name,))
        return True

    @property
    def on_demand(self) -> bool:
        """Whether a champion is loaded only when a request needs it."""
        return self._most_bytes is not None

    def touch(self, names: Iterable[str]) -> None:
        """Mark the champions of `names` as the most recently used."""
        if self.on_demand:
            for name in names:
                if name in self._champions:
                    self._used[name] = None
                    self._used.move_to_end(name)

    def evict(self) -> list[str]:
        """Unload the least recently used champions until the bound holds; return their names.

        The most recently used champion is never unloaded, even if it is too large alone.
        """
        if self._most_bytes is None:
            return []
        unloaded: list[str] = []
        while self.loaded_bytes > self._most_bytes and len(self._used) > 1:
            unloaded.append(next(iter(self._used)))
            self.unload(unloaded[-1])
        return unloaded

    def unload(self, name: str) -> None:
        """Unload the champion of a detector. The detector serves again after `install`."""
        champion = self._champions.pop(name, None)
        if champion is not None:
            self.loaded_bytes -= champion.bytes
        self._used.pop(name, None)

    def forget(self, name: str) -> None:
        """Unload all versions of a deleted detector, and forget its state."""
        self.unload(name)
        self._detectors.pop(name, None)
        self._refused.pop(name, None)
        for key in [key for key in self._pinned if key[0] == name]:
            del self._pinned[key]

    def pinned(self, name: str, number: int) -> Champion | None:
        """Return the loaded version `number` with the current threshold policy, or None."""
        champion, detector = self._champions.get(name), self._detectors.get(name)
        if champion is not None and champion.number == number:
            return champion
        if detector is None:
            return None
        pin = self._pinned.get((name, detector.uid, number))
        if pin is None:
            return None
        if pin.stored != (champion or detector).pointer:
            return self.pin(detector, number, pin.loaded, pin.inline)
        self._pinned.move_to_end((name, detector.uid, number))
        return pin

    def pins(self) -> dict[str, dict[int, str | None]]:
        """Return the pinned versions in memory: detector -> number -> sha256 of the artifact."""
        pinned: dict[str, dict[int, str | None]] = {}
        for (name, _, number), pin in self._pinned.items():
            pinned.setdefault(name, {})[number] = pin.sha256
        return pinned

    def unpin(self, name: str, number: int) -> None:
        """Unload a pinned version, because its artifact in the store has changed."""
        for key in [key for key in self._pinned if (key[0], key[2]) == (name, number)]:
            del self._pinned[key]

    def pin(
        self, detector: Detector, number: int, loaded: LoadedVersion, inline: InlineBounds = WIDEST
    ) -> Champion:
        """Keep a version for pinned requests; unload the least recently used if too many."""
        champion, config = self._champions.get(detector.name), detector.config
        pointer, labels = (champion or detector).pointer, champion.labels if champion else None
        threshold = loaded.version.threshold_for(config.threshold, labels)
        loaded = loaded._replace(version=configured(loaded.version, config))
        options = ServingOptions(threshold, rules=config.rules, inline=inline)
        pin = Champion.of(detector.name, number, pointer, loaded, options)
        key = (detector.name, detector.uid, number)
        self._pinned[key] = pin
        self._pinned.move_to_end(key)
        while len(self._pinned) > self._pinned_loaded:
            self._pinned.popitem(last=False)
        return pin
