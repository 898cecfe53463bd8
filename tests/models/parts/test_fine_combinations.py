"""Combinations of features that hardly vary: a sensor and its twin, a total and its parts."""

from collections.abc import Callable

import numpy as np
import pytest

from models import Config, Model, Version, train
from models.arrays import Array
from models.parts.fine_combinations import FineCombinations
from models.parts.statistics import auroc
from models.parts.views import Views

NOISE = 0.01  # deviation of the twin and of the total; a feature has about 1


def twin_value(x: Array) -> Array:
    """Return the second sensor's value if it is the twin of the first one."""
    return x[:, 0]


def sum_value(x: Array) -> Array:
    """Return the second sensor's value if it is a sum of others."""
    return (x[:, 0] + x[:, 2]) / np.float32(1.4)


def rows(sensors: Callable[[Array], Array], n: int, stream: int) -> Array:
    """Return n scaled vectors of six features; the second one follows from others."""
    rng = np.random.default_rng([n, stream])
    x = (rng.normal(size=(n, 4)) @ np.random.default_rng(3).normal(size=(4, 6))).astype(np.float32)
    x /= 2.0
    x += 0.2 * rng.normal(size=x.shape).astype(np.float32)
    x[:, 1] = sensors(x) + np.float32(NOISE) * rng.normal(size=n).astype(np.float32)
    return x


@pytest.mark.parametrize("sensors", [twin_value, sum_value])
def test_small_differences_of_dependent_sensors_are_found(
    sensors: Callable[[Array], Array],
) -> None:
    """A small difference between dependent sensors is found, also by views fitted to draws."""
    first, rng = rows(sensors, 600, 1), np.random.default_rng(0)
    views = Views.fit(first, 0)
    drawn = views.sample(300, rng)
    later = Views.fit(np.concatenate([drawn, rows(sensors, 300, 2)]), 0)
    normals, astray = rows(sensors, 400, 3), rows(sensors, 400, 4)
    astray[:, 1] += np.float32(8.0 * NOISE)
    for fitted in (views, later):
        log, _, far, *_ = fitted.misfits(normals)
        log_astray, _, far_astray, *_ = fitted.misfits(astray)
        assert auroc(log, log_astray) > 0.95
        assert auroc(far, far_astray) > 0.85
        back = Views.from_tensors(fitted.to_tensors())
        assert back is not None
        np.testing.assert_array_equal(back.misfits(astray), fitted.misfits(astray))
        np.testing.assert_allclose(
            fitted.misfits_of_one(astray[0]),
            [part[0] for part in fitted.misfits(astray)],
            rtol=1e-3,
        )
    worst = astray[:1].copy()
    worst[:, 1] += np.float32(40.0 * NOISE)
    (shares, _), _ = views.explain(worst)
    assert shares[0].argmax() in (0, 1, 2)


def test_independent_features_have_no_fine_combination() -> None:
    """Independent features, flags and constants have no fine combination, nor have few rows."""
    rng = np.random.default_rng(0)
    loose = rng.normal(size=(500, 5)).astype(np.float32)
    assert FineCombinations.fit(loose) is None
    words = np.eye(4, dtype=np.float32)[rng.integers(4, size=500)]
    assert (
        FineCombinations.fit(np.concatenate([loose, words, np.ones((500, 1), np.float32)], axis=1))
        is None
    )
    assert FineCombinations.fit(rows(twin_value, 59, 1)) is None
    assert FineCombinations.fit(rows(twin_value, 60, 1)) is not None


def test_restoring_a_drawn_vector_keeps_whole_numbers() -> None:
    """A drawn vector is restored: whole numbers stay, and the combination varies as learned."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 3)).astype(np.float32)
    x[:, 2] = np.round(x[:, 2])
    x[:, 1] = x[:, 0] + x[:, 2] + np.float32(NOISE) * rng.normal(size=800).astype(np.float32)
    fine = FineCombinations.fit(x)
    assert fine is not None
    blurred = x + np.float32([0.3, 0.3, 0.0]) * rng.normal(size=(800, 3)).astype(np.float32)
    restored = fine.with_drawn_combinations(blurred, rng)
    np.testing.assert_array_equal(restored[:, 2], blurred[:, 2])
    combination = restored[:, 1] - restored[:, 0] - restored[:, 2]
    assert combination.std() == pytest.approx(NOISE, rel=0.2)


def test_a_combination_of_fixed_features_moves_no_feature() -> None:
    """A total of whole numbers leaves a drawn vector as it is, and its version can be read."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 5)).astype(np.float32)
    x[:, :2] = np.round(10.0 * x[:, :2]) / np.float32(10.0)
    x[:, 2] = x[:, 0] + x[:, 1]
    fine = FineCombinations.fit(x)
    assert fine is not None
    assert len(fine.inward) == 1
    np.testing.assert_array_equal(fine.with_drawn_combinations(x, rng), x)
    version = train(None, x, Config(model=Model(epochs=2)))
    assert Version.from_bytes(version.to_bytes()).sha256 == version.sha256


def test_a_version_with_nearly_constant_twins_can_be_read_back() -> None:
    """Nearly constant twins have no combination: it would magnify their noise a million times."""
    x, config = rows(twin_value, 600, 1), Config(strategy="window", model=Model(epochs=2))
    still = x.copy()
    still[:, :2] *= np.float32(1e-5)
    version = train(train(None, x, config), still, config)
    assert Version.from_bytes(version.to_bytes()).sha256 == version.sha256


def over_five_decades(n: int, stream: int) -> Array:
    """Return n scaled vectors of bytes, packets and another feature, all log-normal."""
    rng = np.random.default_rng([n, stream])
    packets = np.exp(2.5 * rng.normal(size=n))
    load = packets * np.exp(0.15 * rng.normal(size=n))
    return (np.column_stack([load, packets, np.exp(rng.normal(size=n))]) / 130.0).astype(np.float32)


def test_a_ratio_of_features_that_span_decades_is_found() -> None:
    """A wrong ratio is found, also by views fitted to draws."""
    first, rng = over_five_decades(1_000, 1), np.random.default_rng(0)
    views = Views.fit(first, 0)
    normals, anomalies = over_five_decades(500, 2), over_five_decades(500, 3)
    anomalies[:, 0] *= 3.0
    for fitted in (views, Views.fit(views.sample(1_000, rng), 0)):
        of_normals, of_anomalies = fitted.misfits(normals)[1], fitted.misfits(anomalies)[1]
        assert auroc(of_normals, of_anomalies) > 0.98
        alone = [fitted.misfits_of_one(row)[1] for row in normals[:20]]
        np.testing.assert_allclose(alone, of_normals[:20], rtol=1e-3, atol=1e-3)
