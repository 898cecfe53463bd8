"""A detector's history: exact counts in bounded space."""

import numpy as np
import pytest

from service.domain import history
from service.domain.history import CHUNK_BYTES, HOUR, MINUTE, SPAN, Bucket, Buckets
from service.domain.traffic import place_of


def bucket(rows: int, seed: int = 0, generation: int = 1) -> Bucket:
    """Return a bucket of `rows` normals, of which about 1 % of at most 5,000 alarm."""
    rng = np.random.default_rng(seed)
    severities = np.log(rng.random(min(rows, 5000))) / np.log(0.01)
    bucket = history.bucket_of(severities, int((severities >= 1).sum()), generation)
    bucket.rows = rows
    bucket.severities = bucket.severities * max(1, rows // 5000)
    bucket.regimes[:3] = rng.multinomial(rows, [0.01, 0.6, 0.39])
    return bucket


def test_percentiles_are_right_within_a_bin() -> None:
    """Percentiles are right within a bin, and at most the largest severity."""
    severities = np.log(np.random.default_rng(1).random(20_000)) / np.log(0.01)
    counts = history.bucket_of(severities, 0, 1)
    for share in (0.5, 0.9, 0.99):
        assert counts.percentile(share) == pytest.approx(np.quantile(severities, share), rel=0.03)
    assert counts.percentile(1.0) == counts.severity_max == severities.max()
    bucket = history.bucket_of(np.array([1.3]), 1, 1)
    assert bucket.percentile(0.99) <= 1.3
    assert Bucket().percentile(0.5) == 0.0


@pytest.mark.parametrize("rows", [1, 60, 6_000, 600_000, 20_000_000])
def test_a_chunk_is_bounded_and_its_counts_exact(rows: int) -> None:
    """Sixty buckets take at most 1,500 bytes and keep the exact counts of rows and alarms."""
    buckets: Buckets = {
        29_000_000 + i: bucket(rows + i, seed=i, generation=1 + i // 20) for i in range(SPAN)
    }
    packed = history.pack(buckets)
    assert len(packed) <= CHUNK_BYTES
    unpacked = history.unpack(packed)
    assert unpacked.keys() == buckets.keys()
    for at, counts in buckets.items():
        assert (unpacked[at].rows, unpacked[at].alarms) == (counts.rows, counts.alarms)
        assert unpacked[at].generation == counts.generation
        assert unpacked[at].severity_max == pytest.approx(counts.severity_max, rel=1e-6)
    middle = 29_000_050
    for share in (0.5, 0.99):
        known = buckets[middle].percentile(share)
        assert unpacked[middle].percentile(share) == pytest.approx(known, rel=0.35)


def test_a_chunk_of_noise_is_bounded() -> None:
    """If histograms cannot be compressed, they are dropped; the numbers of rows and alarms stay."""
    rng = np.random.default_rng(0)
    buckets: Buckets = {}
    for i in range(SPAN):
        buckets[i] = Bucket(
            rows=int(rng.integers(2**40)),
            alarms=int(rng.integers(2**32)),
            severity_max=float(rng.random()),
            generation=int(rng.integers(2**16)),
            severities=rng.integers(2**31, size=history.BINS),
            regimes=rng.integers(2**31, size=history.REGIMES + 1),
        )
    packed = history.pack(buckets)
    assert len(packed) <= CHUNK_BYTES
    assert [bucket.rows for bucket in history.unpack(packed).values()] == [
        bucket.rows for bucket in buckets.values()
    ]


def test_packing_a_chunk_again_changes_nothing() -> None:
    """A compressed chunk stays the same when it is read and written again."""
    once = history.pack({i: bucket(60_000, seed=i) for i in range(SPAN)})
    assert history.pack(history.unpack(once)) == once


def test_bytes_of_another_format_are_ignored() -> None:
    """Bytes of another format are ignored."""
    assert history.unpack(b"") == {}
    assert history.unpack(b"\xff" * 40) == {}


def test_buckets_are_bounded_and_not_empty() -> None:
    """An answer has a bounded number of buckets, and no empty ones."""
    minutes: Buckets = {1000 + i: bucket(10, seed=i) for i in range(0, 600, 3)}
    start, end = 1000 * MINUTE, 1600 * MINUTE
    points = history.points(minutes, {}, start, end, 50)
    assert len(points) <= 50
    assert sum(point.bucket.rows for point in points) == 2_000
    assert all(point.bucket.rows and start <= point.at < end for point in points)
    alone = history.points(minutes, {}, start, end, 1500)
    assert [point.at for point in alone] == [at * MINUTE for at in sorted(minutes)]
    assert history.points(minutes, {}, 0.0, 60.0, 10) == []


def test_hours_are_counted_by_minutes_if_those_are_kept() -> None:
    """An hour is counted by its minutes if they are kept, else by itself."""
    minutes: Buckets = {HOUR // MINUTE * 500 + i: bucket(10, seed=i) for i in range(60)}
    hours: Buckets = {499: bucket(777), 500: bucket(600)}
    points = history.points(minutes, hours, 499 * HOUR, 501 * HOUR, 1500)
    assert sum(point.bucket.rows for point in points) == 1377


def test_rows_per_day_count_from_the_first_row() -> None:
    """The rate counts from the first row of the last day, and is None in the first hour."""
    now = 1_000_000 * MINUTE
    half_a_day: Buckets = {1_000_000 - 720 + i: Bucket(rows=1) for i in range(720)}
    assert history.rows_per_day(half_a_day, now) == pytest.approx(1440)
    assert history.rows_per_day({999_999: Bucket(rows=5)}, now) is None
    assert history.rows_per_day({}, now) is None
    assert history.rows_per_day({1: Bucket(rows=5)}, now) is None


def test_chunks_expire() -> None:
    """Minutes are kept for two days, hours for ninety days."""
    now = 100 * 86_400.0 + 1800
    minutes = [
        history.chunk_of(MINUTE, int((now - age) // MINUTE)) for age in (0, 172_000, 180_000)
    ]
    hours = [
        history.chunk_of(HOUR, int((now - age) // HOUR)) for age in (0, 90 * 86_400, 93 * 86_400)
    ]
    assert history.expired([*minutes, *hours], now) == [minutes[2], hours[2]]
    for age in range(0, 60 * HOUR, 600):
        step, place = place_of(now - age, now)
        assert history.chunk_of(step, place) not in history.expired(
            [history.chunk_of(step, place)], now
        )
    assert place_of(now + 7200, now) == place_of(now, now)  # a clock that is ahead
    assert place_of(0.0, 200 * 86_400.0) == (MINUTE, 200 * 1440)  # older than the history
