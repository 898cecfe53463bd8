"""The results of `score`: the worst rows, the incidents, and a file with every score."""

from dataclasses import replace

import numpy as np

from models.parts.incident_rule import Rule
from service.cli.live import LiveIncidents
from service.cli.score_result import ScoreResult, rows
from service.cli.sheet import Rows

RULE = Rule(k=2, m=10, alone=1.45, seconds=300.0)


def judged(alarms, sources=None, n=60):
    """Return n judged rows, of which those in `alarms` are anomalies."""
    verdicts = [i in alarms for i in range(n)]
    answer = {
        "version": 1,
        "threshold": 1.0,
        "scores": [float(i) for i in range(n)],
        "p_values": [0.5] * n,
        "severities": [1.0 + i / 100 if verdict else 0.2 for i, verdict in enumerate(verdicts)],
        "is_anomaly": verdicts,
        "attributions": [
            [{"feature": "speed", "contribution": 9.0, "value": 2790.0, "expected": 2827.0}]
        ]
        * n,
    }
    times = 1.7e9 + 60.0 * np.arange(n)
    sent = Rows(
        np.zeros((n, 1)), times, sources, "x.csv", "line", range(2, n + 2), [["1"]] * n, "x"
    )
    return list(rows(sent, answer, {"score": "elbo"}))


def row_of(time):
    """Return the number of the row with this time."""
    return round((time - 1.7e9) / 60.0)


def results(judged_rows, top=20):
    """Return the results for rows."""
    result = ScoreResult(top)
    for row in judged_rows:
        result.add(row, RULE)
    return result


def test_alarms_near_each_other_are_one_incident():
    """The detector's rule opens and closes incidents; a single mild alarm opens none."""
    result = results(judged({5, 6, 7, 15, 26, 40, 41}))
    incidents = [
        (row_of(incident.start), row_of(incident.end), incident.peak, incident.count)
        for incident in result.incidents.values()
    ]
    assert incidents == [(5, 15, 1.15, 4), (40, 41, 1.41, 2)]


def test_sources_have_incidents_of_their_own():
    """Rows of another source in between do not end an incident."""
    sources = tuple("ab"[i % 2] for i in range(60))
    result = results(judged({2, 3, 20, 22}, sources))
    assert [(incident.source, incident.count) for incident in result.incidents.values()] == [
        ("a", 3)
    ]


def test_the_worst_rows_come_first(capsys):
    """The worst rows come first, with time and reason; the others are counted."""
    results(judged({5, 6, 7, 50}), top=2).show()
    out = capsys.readouterr().out
    lines = [line.split()[0] for line in out.splitlines()[1:3]]
    assert lines == ["52", "9"]
    assert "2023-11-14 23:03" in out
    assert "speed 2790, expected 2827" in out
    assert "incident, 2023-11-14 22:18:20 to 2023-11-14 22:20:20 UTC: 3 rows, severity" in out
    assert "4 of 60 vectors are anomalies (2 more than shown), 4 of them in 2 incidents" in out


def test_a_long_fault_does_not_fill_the_list_of_the_worst_rows(capsys):
    """At most three rows of one incident are listed, also of the lasting state that it became."""
    rows = [replace(row, severity=9.0, height=9.0) for row in judged(set(range(100)), n=100)]
    rows += [replace(row, time=row.time + 100_000) for row in judged({25, 27, 50})]
    result = results(rows)
    assert [incident.settled for incident in result.incidents.values()] == [True, False, False]
    result.show()
    out = capsys.readouterr().out
    table = out.partition("incident, ")[0].splitlines()[1:]
    assert [line.split()[0] for line in table] == ["2", "3", "4", "52", "29", "27"]
    assert "103 of 160 vectors are anomalies (97 more than shown)" in out


def test_memory_does_not_grow_with_the_incidents_of_a_file():
    """Of closed incidents only the rows that will be listed stay in memory."""
    result = results(judged({i for i in range(3000) if i % 25 < 3}, n=3000), top=5)
    assert len(result.incidents) == 120
    assert sum(map(len, result._worst.values())) <= 5 + 5 + 3


def test_the_milder_incidents_are_summarised(capsys):
    """Below the worst incidents a line counts the others and says what leads most of them."""
    results(judged({i for i in range(300) if i % 25 < 2}, n=300), top=10).show()
    assert "and 2 milder incidents, 2 of them led by speed" in capsys.readouterr().out
    results(judged({0, 1, 20, 21}), top=1).show()
    assert "and 1 milder incident\n" in capsys.readouterr().out


def test_rows_that_were_not_judged_are_no_anomalies(capsys):
    """Rows that were not judged are counted separately, and are not anomalies."""
    first, rest = judged({5})[:10], judged({5})[10:]
    nothing = {"score": None, "p_value": None, "severity": None, "is_anomaly": None}
    results([replace(row, **nothing) for row in first] + rest).show()
    assert "0 of 50 vectors are anomalies; not judged: 10 rows" in capsys.readouterr().out
    many = results(judged({5}))
    many.rows, many.judged, many.anomalies = 6_000, 4_500, 2_001
    many.show()
    assert "2,001 of 4,500 vectors are anomalies" in capsys.readouterr().out


def test_rows_that_were_not_judged_are_counted_by_state(capsys):
    """If rows are late, the command says what to do: sort the file, or name the time zone."""
    rows_ = judged({5})[:3]
    states = ("warming", "late", "late")
    result = results(
        replace(row, is_anomaly=None, state=state) for row, state in zip(rows_, states, strict=True)
    )
    result.show()
    out = capsys.readouterr().out
    assert "not judged: 3 rows (2 late, 1 warming)" in out
    assert "sort the file by time" in out
    assert "--timezone" in out  # without it the hour that comes twice in autumn is late


def test_rows_that_are_not_in_the_order_of_time_are_counted(capsys):
    """Incidents follow the order of the file, which is then not that of time."""
    results(judged({5})[::-1]).show()
    assert "59 rows are older than an earlier row of their source" in capsys.readouterr().out
    results(judged({5}, tuple("ab"[i % 2] for i in range(60)))).show()
    assert "older than" not in capsys.readouterr().out


def test_rows_that_the_config_ignores_are_counted(capsys):
    """A row whose state is `ignored` was judged, is not an anomaly, and is counted separately."""
    first, *rest = judged({5})
    live = LiveIncidents(Rule(k=2, m=10, alone=4.0, seconds=0.0))
    rows = [replace(first, state="ignored"), *rest]
    results(rows).show()
    assert "1 of 60 vectors are anomalies; 1 more are ignored by the config" in " ".join(
        capsys.readouterr().out.split()
    )
    for row in rows:
        list(live.add(row))
    assert list(live.end())[-1] == "1 of 60 rows were anomalies; 1 more are ignored by the config"
