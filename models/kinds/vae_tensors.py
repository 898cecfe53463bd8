"""Specs of the artifact tensors that only the kind `vae` has."""

from models.parts.calibration import LARGEST
from models.parts.data_density import DIRECTIONS, KERNELS, WHITENED
from models.parts.feature_tree import BINS
from models.parts.fine_combinations import MOST as MOST_FINE
from models.parts.marginals import KNOTS, REACH
from models.parts.mixture import MODES
from models.parts.network import Shape
from models.scores.auto import ALWAYS, FEW_FEATURES, PICTURES
from models.scores.by_name import BANKED, base_score
from models.scores.generated_bank import SIZE
from models.scores.just_in_time import LOCAL
from models.version.spec import LARGEST_WEIGHT, SLIGHT, Lengths, Specs, TensorSpec, labels, mixture


def specs(shape: Shape, score: str, rows: Lengths) -> Specs:
    """Return the specs for a version with this network shape and score."""
    return {
        **mixture(shape, rows, rows["latents.weights"], LARGEST_WEIGHT),
        **_solver(shape, rows),
        **_fisher(shape, rows),
        **_bank(shape, score, rows),
        **_views(shape, score, rows),
    }


def _solver(shape: Shape, rows: Lengths) -> Specs:
    """Return the specs of `models.version.classifier`."""
    C, h = rows["memory.solver.labels"], rows["memory.solver.V"]
    if not C:
        return {}
    return {
        "memory.solver.labels": labels(C),
        "memory.solver.U": TensorSpec("float32", (shape.latent, h)),
        "memory.solver.a": TensorSpec("float32", (1, h)),
        "memory.solver.V": TensorSpec("float32", (h, C)),
        "memory.solver.b": TensorSpec("float32", (1, C)),
    }


def _fisher(shape: Shape, rows: Lengths) -> Specs:
    """Return the specs of `models.strategies.ewc`."""
    return {
        f"memory.fisher.{name}": TensorSpec("float32", size, 0.0, LARGEST)
        for name, size in shape.tensors().items()
        if rows[f"memory.fisher.{name}"]
    }


def _bank(shape: Shape, score: str, rows: Lengths) -> Specs:
    """Return the spec of the bank of generated vectors, for the scores that use it."""
    if base_score(score) not in BANKED:
        return {}
    codes = min(max(rows["scoring.codes"], LOCAL), SIZE)
    return {"scoring.codes": TensorSpec("float32", (codes, shape.latent))}


def _views(shape: Shape, score: str, rows: Lengths) -> Specs:
    """Return the specs of the score `auto`: its views and the calibration of its parts."""
    if base_score(score) != "auto":
        return {}
    d = shape.dimension
    m, fine = _fine("scoring.views.fine.", d, rows)
    m_normal, fine_normal = _fine("scoring.views.fine_normal.", d, rows)
    parts = _parts_of_auto(shape, rows["scoring.auto.tables"])
    return {
        **fine,
        **fine_normal,
        "scoring.views.unit": TensorSpec("float32", (d,), SLIGHT),
        "scoring.views.marginals.values": TensorSpec("float64", (d, KNOTS), -REACH, REACH),
        "scoring.views.marginals.scores": TensorSpec("float64", (d, KNOTS)),
        "scoring.views.marginals.unit": TensorSpec("float64", (d,), SLIGHT),
        **_density("scoring.views.drawn_in.", d + m, rows),
        **_density("scoring.views.normal.", d + m_normal, rows),
        **_tree("scoring.views.tree.", d, rows),
        **_tree("scoring.views.pairs.", d, rows),
        "scoring.auto.tables": TensorSpec("float64", (parts, -1), -LARGEST, LARGEST),
        **_indices_of_parts(parts, rows),
    }


def _parts_of_auto(shape: Shape, stored: int) -> int:
    """Return how many parts the score `auto` may have, as near to `stored` as possible."""
    if shape.likelihood == "bernoulli" and stored == len(PICTURES):
        return stored
    return min(max(stored, ALWAYS), ALWAYS + len(FEW_FEATURES))


def _indices_of_parts(parts: int, rows: Lengths) -> Specs:
    """Return the spec of the parts' indices, which versions of pictures store since a release."""
    if parts != len(PICTURES) or not rows["scoring.auto.parts"]:
        return {}
    return {"scoring.auto.parts": TensorSpec("int64", (parts,), 0, max(PICTURES))}


def _tree(prefix: str, d: int, rows: Lengths) -> Specs:
    """Return the specs of a `parts.feature_tree.FeatureTree` of d features, if there is one."""
    if not rows[prefix + "parents"]:
        return {}
    k = min(max(rows[prefix + "nats"], 1), BINS)
    on_pieces = {}
    if rows[prefix + "on_pieces"]:  # versions of earlier releases have no such array
        on_pieces[prefix + "on_pieces"] = TensorSpec("float32", (d, KNOTS + 1), 0.0, LARGEST)
    return {
        **on_pieces,
        prefix + "bins": TensorSpec("int64", (d, KNOTS + 1), 0, k - 1),
        prefix + "parents": TensorSpec("int64", (d,), 0, d - 1),
        prefix + "nats": TensorSpec("float32", (k, d, k), 0.0, LARGEST),
    }


def _fine(prefix: str, d: int, rows: Lengths) -> tuple[int, Specs]:
    """Return the number of fine combinations of d features, and the specs of their arrays."""
    m = min(rows[prefix + "inward"], MOST_FINE)
    sizes = {"origin": (d,), "inward": (m, d), "outward": (m, d)} if m else {}
    return m, {prefix + name: TensorSpec("float32", size) for name, size in sizes.items()}


def _density(prefix: str, d: int, rows: Lengths) -> Specs:
    """Return the specs of a `parts.data_density.DataDensity` of d features."""
    k = min(max(rows[prefix + "directions"], 1), DIRECTIONS, d)
    t = min(rows[prefix + "tail"], WHITENED)
    modes = min(max(rows[prefix + "weights"], 1), MODES)
    kernels = min(max(rows[prefix + "shares"], 1), KERNELS)
    specs = {
        "mean": TensorSpec("float64", (d,)),
        "directions": TensorSpec("float32", (k, d)),
        "scale": TensorSpec("float64", (1,), SLIGHT),
        "tail": TensorSpec("float32", (t, d)),
        "tail_variances": TensorSpec("float64", (t,), SLIGHT),
        "rest": TensorSpec("float64", (1,), SLIGHT),
        "weights": TensorSpec("float64", (modes,), 0.0, 1.0),
        "means": TensorSpec("float32", (modes, k)),
        "factors": TensorSpec("float32", (modes, k, k)),
        "centres": TensorSpec("float64", (kernels, k)),
        "variances": TensorSpec("float64", (kernels,), SLIGHT),
        "shares": TensorSpec("float64", (kernels,), -50.0, 1e-6),
    }
    return {prefix + name: spec for name, spec in specs.items()}
