"""The default score without one of its parts, which tables print beside the whole score."""

from models.scores.auto import Auto, joined, parts_of

WITHOUT = ("without the network", "without the densities")


def ablated(version, X):
    """Return the scores (n,) of X (n, d) without each part.

    The result is empty if the version's score is not `auto`. The third ablation, without replay, is
    a separate training with strategy `finetune`.
    """
    if version.config.score != "auto":
        return {}
    score = Auto.from_tensors(version.network, version.scoring)
    parts = parts_of(score, version.scaler.transform(X))
    surprises = score.surprises(parts)
    network = surprises[0].copy()
    surprises[0] = 0.0
    return dict(zip(WITHOUT, (joined(surprises, score.counted), network), strict=True))
