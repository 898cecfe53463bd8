"""`learn` of files that grow, and of files with a detector for each value of a column."""

import io
import json

import numpy as np

from service.cli.console import Exit
from service.cli.new_detector import config_for
from service.cli.sheet import Sheet
from service.cli.text_table import Options
from tests.service.cli.test_cli import ACCEPTED, SCORED, STATUS, run, stub

__all__ = ["run", "stub"]

PUMP = {**STATUS, "created_at": "2026-01-01T00:00:00.000Z"}


def bodies(stub, path: str) -> list[list[list[float]]]:
    """Return the rows that were posted to a path, in order."""
    return [rows(body) for verb, at, _, body in stub.asked if (verb, at) == ("POST", path)]


def rows(body: bytes) -> list[list[float]]:
    """Return the rows of a body of any type."""
    if body.startswith(b"{"):
        return json.loads(body)["vectors"]
    return np.load(io.BytesIO(body)).tolist()


def test_a_file_that_grew_is_sent_from_where_it_ended(run, stub, tmp_path):
    """Only new rows are sent, also after more than a day; --again sends all rows."""
    file, path = tmp_path / "x.csv", "/v1/detectors/pump/normal"
    stub.answers["GET", "/v1/detectors/pump"] = (200, PUMP)
    stub.answers["POST", path] = (202, ACCEPTED)
    sent = []
    for text, extra in (("a,b\n1,2\n3,4\n", []), ("5,6\n", []), ("", []), ("", ["--again"])):
        with file.open("a") as growing:
            growing.write(text)
        before = len(bodies(stub, path))
        status, _, err = run("learn", str(file), "-d", "pump", "--url", stub.url, *extra)
        assert status == Exit.OK
        sent.append([len(body) for body in bodies(stub, path)[before:]])
        assert ("2 rows were sent before, 0 of 1 batches in full" in err) == (text == "5,6\n")
    assert sent == [[2], [1], [], [3]]
    stub.answers["GET", "/v1/detectors/pump"] = (200, {**PUMP, "created_at": "2026-02-02T00:00Z"})
    run("learn", str(file), "-d", "pump", "--url", stub.url)
    assert len(bodies(stub, path)[-1]) == 3, "a detector made anew has none of it"


def test_a_file_that_changed_is_sent_from_the_changed_batch_on(run, stub, tmp_path):
    """A changed file is sent from the changed batch on."""
    file = tmp_path / "x.csv"
    stub.answers["GET", "/v1/detectors/pump"] = (200, PUMP)
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, ACCEPTED)
    for last in ("3,4", "3,5"):
        file.write_text(f"a,b\n1,2\n{last}\n")
        run("learn", str(file), "-d", "pump", "--url", stub.url)
    assert [len(body) for body in bodies(stub, "/v1/detectors/pump/normal")] == [2, 2]


def test_the_rows_of_a_file_are_context_of_the_next_file(run, stub, tmp_path):
    """If a file begins after the files before it end, its first rows have a context."""
    path = "/v1/detectors/pump/normal"
    status = {**PUMP, "config": {"context": {"over": 2, "every": None, "derive": ["deviation"]}}}
    stub.answers["GET", "/v1/detectors/pump"] = (200, status)
    stub.answers["POST", path] = (202, ACCEPTED)
    files = [tmp_path / f"{name}.csv" for name in "abc"]
    for file, first in zip(files, (1, 4, 2), strict=True):
        lines = "".join(f"{first + i},{first + i}\n" for i in range(3))
        file.write_text(f"when,x\n{lines}")
    options = ("-d", "pump", "--time", "when", "--url", stub.url)
    assert run("learn", *map(str, files), *options)[0] == Exit.OK
    sent = [json.loads(body) for verb, at, _, body in stub.asked if (verb, at) == ("POST", path)]
    assert [request.get("context_rows", 0) for request in sent] == [0, 2, 0]
    assert [request["timestamps"] for request in sent] == [[1, 2, 3], [2, 3, 4, 5, 6], [2, 3, 4]]


def test_a_column_can_name_a_detector_for_each_row(run, stub, tmp_path):
    """Rows are returned in the order of the file; names keep letters, digits and `._-`."""
    file = tmp_path / "x.csv"
    file.write_text("machine,a,b\nPump 1,1,2\nm2,3,4\nPump 1,5,6\nm2,7,8\n")
    for name in ("plant%3APump_1", "plant%3Am2"):
        made = (("GET", f"/v1/detectors/{name}"), (200, {**PUMP, "name": name}))
        stub.made["PUT", f"/v1/detectors/{name}"] = made
        config = {"dimension": 2, "retrain": {"min_vectors": None}}
        stub.answers["PUT", f"/v1/detectors/{name}"] = (201, config)
        stub.answers["POST", f"/v1/detectors/{name}/normal"] = (202, ACCEPTED)
        stub.answers["POST", f"/v1/detectors/{name}/score"] = (200, SCORED)
    # A detector of this name is one of a template's entities.
    stub.answers["PUT", "/v1/templates/plant"] = (201, {"missing": "refuse"})
    how = ("-d", "plant", "--group-by", "machine", "--url", stub.url)
    status, out, err = run("learn", str(file), *how)
    assert (status, err.count("created the detector")) == (Exit.OK, 2)
    assert ("PUT", "/v1/templates/plant") in {asked[:2] for asked in stub.asked}
    assert out.startswith("plant:Pump_1, plant:m2: 4 accepted")
    assert bodies(stub, "/v1/detectors/plant%3APump_1/normal")[0] == [[1, 2], [5, 6]]
    _, out, _ = run("score", str(file), *how, "--json")
    judged = [json.loads(line) for line in out.splitlines()]
    assert [row["line"] for row in judged] == [2, 3, 4, 5]
    assert [row["is_anomaly"] for row in judged] == [False, False, True, True]


def test_two_values_that_would_be_one_detector_are_refused(run, stub, tmp_path):
    """Two values with the same detector name are refused, and so is an empty value."""
    file = tmp_path / "x.csv"
    stub.answers["GET", "/v1/detectors/plant%3Aa_b"] = (200, PUMP)
    for second, refusal in (("a/b", "same detector name"), ("x" * 65, "1 to 64 characters")):
        file.write_text(f"machine,a\na b,1\n{second},2\n")
        status, _, err = run(
            "learn", str(file), "-d", "plant", "--group-by", "machine", "--url", stub.url
        )
        assert status == Exit.USAGE
        assert "line 3" in err
        assert refusal in err


def test_several_files_are_sent_in_their_order(run, stub, tmp_path):
    """The rows of several files are counted together; what was sent before is not sent again."""
    files = [tmp_path / f"{day}.csv" for day in (1, 2, 3)]
    for day, file in enumerate(files):
        file.write_text(f"a,b\n{day},2\n{day},4\n")
    stub.answers["GET", "/v1/detectors/pump"] = (200, PUMP)
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, ACCEPTED)
    for some in (files[:2], files):
        status, _, err = run("learn", *map(str, some), "-d", "pump", "--url", stub.url)
        assert status == Exit.OK
        assert ("2.csv: 2 rows were sent before" in err) == (len(some) == 3)
    assert [body[0][0] for body in bodies(stub, "/v1/detectors/pump/normal")] == [0, 1, 2]


def test_blank_cells_of_columns_without_names_are_accepted(tmp_path):
    """A detector whose columns have no names accepts gaps, too, if the first rows have some."""
    np.save(tmp_path / "x.npy", np.array([[1, np.nan], [2, 3]]))
    (tmp_path / "x.csv").write_text("1,\n2,3\n")
    for name in ("x.npy", "x.csv"):
        with Sheet(tmp_path / name, Options()) as sheet:
            config, notes = config_for(sheet, "UTC")
        assert config == {"missing": "impute"}
        assert notes == ["some cells are blank: rows are judged on what was observed"]


def test_rows_that_are_mostly_blank_are_left_out(run, stub, tmp_path):
    """A row with fewer than half of its values does not stop the others; they are counted."""
    file, path = tmp_path / "x.csv", "/v1/detectors/pump/normal"
    file.write_text("a,b,c\n1,2,3\n4,,\n5,,6\n")
    stub.answers["GET", "/v1/detectors/pump"] = (200, {**PUMP, "config": {"missing": "impute"}})
    stub.answers["POST", path] = (202, ACCEPTED)
    status, _, err = run("learn", str(file), "-d", "pump", "--url", stub.url)
    assert status == Exit.OK
    assert "1 rows have fewer than half of their values: not learned" in err
    assert [len(body) for body in bodies(stub, path)] == [2]
