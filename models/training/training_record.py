"""What a training records of itself: the lineage of the version, and alarm rates for the gate."""

from models.arrays import Array, Float64
from models.config import Config
from models.parts.lineage import NO_EVIDENCE, Alarms, ComparedAlarms, Evidence, Lineage, Training
from models.parts.reference import Reference
from models.training.mixing import RARE
from models.version.version import Version


def lineage_of(  # noqa: PLR0913 - the facts that differ between the kinds
    previous: Version | None,
    config: Config,
    training: Training,
    *,
    weights: tuple[float, float],
    counts: tuple[int, int],
    seed: int,
    bytes_kept: int,
) -> Lineage:
    """Return the lineage of a version that is being made; it has no parent and no evidence yet.

    `weights` are w_prev and w_new; `counts` are the numbers of old and of new vectors.
    """
    before = previous.lineage if previous else None
    return Lineage(
        parent=None,
        strategy=config.strategy,
        w_prev=weights[0],
        w_new=weights[1],
        n_prev=counts[0],
        n_new=counts[1],
        learned=(before.learned if before else 0) + counts[1],
        experiences=(before.experiences if before else 0) + 1,
        seed=seed,
        training=training,
        bytes_kept=bytes_kept,
        evidence=NO_EVIDENCE,
    )


def reference_of(previous: Version | None, new: Array, share_old: float) -> Reference:
    """Return the previous version's reference updated with normals (n, d), or a first one."""
    return previous.reference.updated(new, share_old) if previous else Reference.fit(new)


def alarm_evidence(
    version: Version,
    champion: Version | None,
    x: Array,
    held_out: Float64,
    old: tuple[Float64, Float64],
) -> Evidence:
    """Return alarm rates of champion and candidate, each at its own threshold.

    The champion judges the new normals x (n, d), scaled. The candidate has learned them, so its
    rate is that of the scores `held_out` (m,). `old` are the scores of the same old normals under
    champion and candidate, (k,) each.
    """
    threshold = version.threshold
    candidate_rate = float((held_out >= threshold).mean())
    if champion is None:
        return Evidence(n_new=len(held_out), new=Alarms(candidate=candidate_rate))
    before, after = old
    return Evidence(
        n_new=len(held_out),
        new=Alarms(
            candidate=candidate_rate,
            champion=float((champion.score_scaled(x) >= champion.threshold).mean()),
        ),
        unlearned=float((version.calibration.p_values(held_out) <= RARE).mean()),
        n_old=len(before),
        old=ComparedAlarms(
            champion=float((before >= champion.threshold).mean()),
            candidate=float((after >= threshold).mean()),
        ),
    )
