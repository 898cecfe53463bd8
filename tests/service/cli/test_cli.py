"""The command line: its output, and the exit statuses that scripts use."""

import io
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import stamina

from service import addresses
from service.cli import __main__ as cli
from service.cli import console
from service.cli.console import Exit

SCORED = {
    "version": 3,
    "scores": [1.0, 40.0],
    "p_values": [0.5, 0.0002],
    "severities": [0.1, 1.85],
    "threshold": 20.0,
    "is_anomaly": [False, True],
}
ACCEPTED = {"batch_id": "1", "accepted": 2, "quarantined": 0, "duplicate": 0, "buffered": 2}
STATUS = {
    "name": "pump", "champion": 3, "generation": 4, "buffered": 0, "learned": 9, "config": {}
}  # fmt: skip


class Stub:
    """A service that answers from a table of (method, path) and records the requests."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, object]] = {}
        self.made: dict[tuple[str, str], tuple[tuple[str, str], tuple[int, object]]] = {}
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                stub.asked.append((self.command, self.path, headers, body))
                path = self.path.partition("?")[0]
                without_query = stub.answers.get((self.command, path), (404, {}))
                status, answer = stub.answers.get((self.command, self.path), without_query)
                if made := stub.made.get((self.command, self.path)):
                    stub.answers.update([made])
                encoded = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            # The names are those of http.server.
            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_one  # noqa: N815

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def stub() -> Iterator[Stub]:
    """Yield a listening stub service, which has the detector `pump`."""
    stub = Stub()
    stub.answers["GET", "/v1/detectors/pump"] = (200, STATUS)
    thread = threading.Thread(target=stub.server.serve_forever, args=(0.01,))
    thread.start()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()
    thread.join()


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line; return (exit status, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["anamnesis", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def file(tmp_path):
    """Return a CSV file of two vectors below a header."""
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    return str(path)


def test_score_shows_the_anomalies(run, stub, file):
    """The table has the anomalies with their lines, and a last line has the counts."""
    stub.answers["POST", "/v1/detectors/pump/score"] = (200, SCORED)
    status, out, _ = run("score", file, "-d", "pump", "--url", stub.url)
    assert status == Exit.OK
    assert "1 of 2 vectors are anomalies" in out
    assert "0.0002" in out


def test_a_recorded_file_leads_to_the_page(run, stub, file, monkeypatch):
    """The last line has the address of the page, also if the settings name the service."""
    stub.answers["POST", "/v1/detectors/pump/score"] = (200, SCORED)
    monkeypatch.setenv("ANAMNESIS_URL", stub.url)
    status, _, err = run("score", file, "-d", "pump", "--record")
    assert status == Exit.OK
    assert f"{stub.url}/detectors/pump shows the incidents" in err.splitlines()[-1]


def test_score_as_json_has_one_object_a_vector(run, stub, file):
    """Every vector is a line of JSON with its line number in the file."""
    stub.answers["POST", "/v1/detectors/pump/score"] = (200, SCORED)
    _, out, _ = run("score", file, "-d", "pump", "--url", stub.url, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["line"] for row in rows] == [2, 3]
    assert [row["is_anomaly"] for row in rows] == [False, True]


def test_a_refused_host_is_not_called_a_key_without_rights(run, stub, file):
    """The detail of a 403 is shown, unless the key lacks a right: then the command says which."""
    problem = {"type": "/problems/foreign-origin", "detail": "The header `Host` is wrong."}
    stub.answers["GET", "/v1/detectors/pump"] = (403, problem)
    status, _, err = run("score", str(file), "-d", "pump", "--url", stub.url)
    assert (status, err.splitlines()[-1]) == (1, "anamnesis: The header `Host` is wrong.")
    stub.answers["GET", "/v1/detectors/pump"] = (403, {"type": "/problems/forbidden"})
    _, _, err = run("score", str(file), "-d", "pump", "--url", stub.url)
    assert "the key may not read the config" in err


def test_score_can_fail_on_anomalies(run, stub, file):
    """With --fail-on-anomaly an anomaly gives exit status 4."""
    stub.answers["POST", "/v1/detectors/pump/score"] = (200, SCORED)
    status, *_ = run("score", file, "-d", "pump", "--url", stub.url, "--fail-on-anomaly")
    assert status == Exit.ANOMALY


def test_a_refused_row_is_named_by_its_line(run, stub, file):
    """An error in a row names the line of the file, not the row of the request."""
    problem = {"detail": "NaN is not a number to score", "row": 1, "column": 0}
    stub.answers["POST", "/v1/detectors/pump/score"] = (422, problem)
    status, _, err = run("score", file, "-d", "pump", "--url", stub.url)
    assert status == Exit.USAGE
    assert "x.csv, line 3, column a: NaN is not a number to score" in err


@pytest.mark.parametrize(("header", "name"), [("when,a,b\n", "a"), ("", "2")])
def test_columns_have_their_names_in_the_file(run, stub, tmp_path, header, name):
    """Reasons and errors name the file's column, or its number from 1 if there is no header."""
    path = tmp_path / "x.csv"
    path.write_text(f"{header}1,1,2\n2,3,4\n")
    command = ("score", str(path), "-d", "pump", "--time", "1", "--url", stub.url)
    reason = {"feature": "0", "contribution": 9.0, "value": 3.0, "expected": 1.0}
    answer = SCORED | {"attributions": [[reason], [reason]]}
    stub.answers["POST", "/v1/detectors/pump/score"] = (200, answer)
    assert f"{name} 3, expected 1" in run(*command)[1]
    problem = {"detail": "NaN is not a number to score", "row": 1, "column": 0}
    stub.answers["POST", "/v1/detectors/pump/score"] = (422, problem)
    assert f"column {name}: NaN is not a number to score" in run(*command)[2]


def test_times_are_shown_in_the_zone_that_was_asked(run, stub, tmp_path):
    """With --timezone, the times of rows and incidents are those of the file."""
    path = tmp_path / "x.csv"
    path.write_text("when,a\n2026-07-01 12:00,1\n2026-07-01 12:10,3\n")
    rule = {"alarming_rows": 1, "of_rows": 1, "severity_alone": 1.0}
    stub.answers["GET", "/v1/detectors/pump"] = (200, STATUS | {"incident_rule": rule})
    stub.answers["POST", "/v1/detectors/pump/score"] = (200, SCORED)
    command = ("score", str(path), "-d", "pump", "--time", "when", "--url", stub.url)
    for zone in ("UTC", "Europe/Berlin"):
        out = run(*command, "--timezone", zone)[1]
        assert f"time ({zone})" in out
        assert "2026-07-01 12:10" in out.splitlines()[1]
        assert f"2026-07-01 12:10 {zone}: 1 row" in out


def test_a_repeated_request_shows_the_reason_of_the_service(run, stub, file):
    """While a request is repeated, the service's reason is shown, not a library's message."""
    path = "/v1/detectors/pump"
    stub.answers["GET", path] = (503, {"detail": "The store does not answer."})
    stub.made["GET", path] = (("GET", path), (200, STATUS))
    stub.answers["POST", f"{path}/score"] = (200, SCORED)
    with stamina.set_testing(True, attempts=2):
        status, _, err = run("score", file, "-d", "pump", "--url", stub.url)
    assert status == Exit.OK
    assert "anamnesis: The store does not answer. Trying again in " in err
    assert "stamina" not in err


def test_a_refusal_exits_with_1_and_the_detail(run, stub):
    """If the service refuses a request, the command shows the service's own sentence."""
    stub.answers["PUT", "/v1/detectors/pump/champion"] = (410, {"detail": "version 1 is gone"})
    status, out, err = run("promote", "pump", "1", "--url", stub.url)
    assert (status, out) == (Exit.REFUSED, "")
    assert "version 1 is gone" in err


def test_promote_and_rollback_send_the_reason(run, stub):
    """The reason stands in the audit trail and beside the move of the champion."""
    stub.answers["GET", "/v1/detectors/pump"] = (200, {"champion": 2, "generation": 2})
    stub.answers["GET", "/v1/detectors/pump/versions/2"] = (200, {"parent": 1})
    answer = {"champion": 1, "generation": 3}
    stub.answers["PUT", "/v1/detectors/pump/champion"] = (200, answer)
    for command in (("promote", "pump", "1"), ("rollback", "pump")):
        status, _, err = run(*command, "--why", "noise", "--url", stub.url)
        assert status == Exit.OK, err
        *_, (method, _, _, body) = stub.asked
        assert (method, json.loads(body)["why"]) == ("PUT", "noise")


def test_delete_asks_before(run, stub, monkeypatch):
    """`delete` deletes a detector after a yes, or with --yes; without an answer nothing happens."""
    stub.answers["GET", "/v1/detectors/pump"] = (200, {"learned": 22794})
    stub.answers["DELETE", "/v1/detectors/pump"] = (204, None)
    for answer, options, deleted in (("", [], False), ("n\n", [], False), ("y\n", [], True),
                                     ("", ["--yes"], True)):  # fmt: skip
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        stub.asked.clear()
        status, out, err = run("delete", "pump", *options, "--url", stub.url)
        assert (status == Exit.OK, "pump is deleted" in out) == (deleted, deleted), err
        assert ("DELETE" in {request[0] for request in stub.asked}) is deleted
        assert ("which learned 22,794 vectors" in err) is not bool(options)


def test_a_broken_detector_can_be_deleted(run, stub, monkeypatch):
    """A detector whose status cannot be shown is deleted after a yes, like any other."""
    broken = {"name": "pump", "generation": 3, "broken": "its config cannot be read"}
    stub.answers["GET", "/v1/detectors/pump"] = (200, broken)
    stub.answers["DELETE", "/v1/detectors/pump"] = (204, None)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    status, out, err = run("delete", "pump", "--url", stub.url)
    assert (status, out.strip()) == (Exit.OK, "pump is deleted"), err


def test_no_service_at_the_url_exits_with_3(run):
    """If no service answers, the exit status is 3."""
    status, _, err = run("detectors", "--url", "http://127.0.0.1:1")
    assert status == Exit.UNREACHABLE
    assert "anamnesis up" in err


@pytest.mark.parametrize(
    "arguments",
    [("score", "no-such-file"), ("nonsense",), ("up", "--port", "99999"), ("promote", "pump")],
)
def test_usage_errors_exit_with_2(run, arguments):
    """A wrong use of the command line gives status 2, and no traceback."""
    status, _, err = run(*arguments)
    assert status == Exit.USAGE
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ANAMNESIS_REDIS_URL", "secret:6379", "ANAMNESIS_REDIS_URL: starts with none of redis://"),
        ("ANAMNESIS_CONFIG_FILE", "broken.toml", "not TOML"),
        ("ANAMNESIS_CONFIG_FILE", "absent.toml", "there is no file"),
        ("ANAMNESIS_CONFIG_FILE", "folder", "there is no file"),
        ("ANAMNESIS_CONFIG_FILE", "garbage", "ANAMNESIS_CONFIG_FILE: garbage is not text"),
        ("ANAMNESIS_PORT", "secret", "ANAMNESIS_PORT: "),
        ("ANAMNESIS_PORT", "99999", "ANAMNESIS_PORT: "),
        ("ANAMNESIS_REDIS_URL", "redis://h:secret/0", "ANAMNESIS_REDIS_URL: its host or port"),
        ("ANAMNESIS_REDIS_URL", "redis://[secret/0", "ANAMNESIS_REDIS_URL: its host or port"),
        ("ANAMNESIS_REDIS_URL", "redis://h/secret", "ANAMNESIS_REDIS_URL: its database"),
        ("ANAMNESIS_REDIS_URL", "redis:///0", "ANAMNESIS_REDIS_URL: give redis://"),
        ("ANAMNESIS_REDIS_URL_FILE", "absent", "ANAMNESIS_REDIS_URL_FILE: absent cannot be read"),
        ("ANAMNESIS_REDIS_URL_FILE", "folder", "ANAMNESIS_REDIS_URL_FILE: folder cannot be read"),
        ("ANAMNESIS_REDIS_URL_FILE", "garbage", "ANAMNESIS_REDIS_URL_FILE: garbage is not text"),
        ("ANAMNESIS_REDIS_URL_FILE", "broken.toml", "ANAMNESIS_REDIS_URL_FILE: starts with none"),
        ("ANAMNESIS_CACHE_DIR", "\udcff", "ANAMNESIS_CACHE_DIR: "),
        ("ANAMNESIS_TLS_KEY", "", "ANAMNESIS_TLS_KEY is set but empty"),
    ],
)
def test_bad_settings_exit_with_2(run, tmp_path, monkeypatch, variable, value, words):
    """A wrong setting is reported in one sentence without its value."""
    (tmp_path / "broken.toml").write_text("port = [")
    (tmp_path / "garbage").write_bytes(b"\xff\xfe\x00secret")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    status, _, err = run("api")
    assert status == Exit.USAGE
    assert "Traceback" not in err
    assert words in " ".join(err.split())
    assert "secret" not in err


def test_learn_twice_sends_the_same_key(run, stub, file, tmp_path):
    """A repeated command sends the same Idempotency-Key, and with --again another one.

    The notes of what was sent are deleted in between, as if on another machine.
    """
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, ACCEPTED)
    for extra in ((), (), ("--again",)):
        status, out, _ = run("learn", file, "-d", "pump", "--url", stub.url, *extra)
        assert status == Exit.OK
        assert "2 accepted" in out
        shutil.rmtree(tmp_path / "home")
    keys = [asked[2]["idempotency-key"] for asked in stub.asked if asked[0] == "POST"]
    assert keys[0] == keys[1] != keys[2]


CONFIG = {"dimension": 2, "retrain": {"min_vectors": 1000}}


def made_by_learn(stub):
    """Let the stub make the detector `new`."""
    stub.answers["PUT", "/v1/detectors/new"] = (201, CONFIG)
    stub.answers["PATCH", "/v1/detectors/new"] = (200, CONFIG)
    # The stub answers 404 until the detector is made.
    stub.made["PUT", "/v1/detectors/new"] = (("GET", "/v1/detectors/new"), (200, STATUS))
    stub.answers["POST", "/v1/detectors/new/normal"] = (202, ACCEPTED)


@pytest.mark.parametrize(("more", "exit_status"), [("", Exit.OK), ("5,x\n", Exit.USAGE)])
def test_a_new_detector_learns_when_the_whole_file_is_sent(run, stub, tmp_path, more, exit_status):
    """A missing detector is made with the defaults. Its first retraining waits for the last row.

    It does not wait any longer if a row is bad.
    """
    made_by_learn(stub)
    file = tmp_path / "x.csv"
    file.write_text("a,b\n" + "1,2\n" * 60_000 + more)
    status, _, err = run("learn", str(file), "-d", "new", "--url", stub.url)
    assert status == exit_status
    assert "created the detector new" in err
    changes = [(method, body) for method, _, _, body in stub.asked if method in ("PATCH", "POST")]
    assert len(changes) > 3
    (_, first), *sent, (_, last) = changes
    assert json.loads(first) == {"retrain": {"min_vectors": 100_000}}
    assert {method for method, _ in sent} == {"POST"}
    assert json.loads(last) == {"retrain": {"min_vectors": 1000}}


def test_a_rejection_is_reported_with_what_to_do(run, stub, file):
    """If the gate rejects what `learn --now` learned, a person reads why and what to do."""
    last = {"outcome": "rejected", "version": 4, "reasons": ["old normals: too many alarm"]}
    stub.answers["GET", "/v1/detectors/pump"] = (200, {**STATUS, "buffered": 2})
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, ACCEPTED)
    stub.answers["POST", "/v1/detectors/pump/retrain"] = (200, {"last_retraining": last})
    _, out, err = run("learn", file, "-d", "pump", "--url", stub.url, "--now")
    assert "retraining: rejected, version 4" in out
    assert "pump: old normals: too many alarm" in err
    assert "`anamnesis promote pump 4`" in err


@pytest.mark.parametrize("given", ["b", "2", "a,b"])
def test_a_category_has_no_effect_on_a_detector_that_exists(run, stub, file, given):
    """`learn --category` says that it cannot change the columns of a detector that exists."""
    columns = [{"name": "a", "type": "category"}, {"name": "b", "type": "number"}]
    stub.answers["GET", "/v1/detectors/pump"] = (200, {**STATUS, "config": {"columns": columns}})
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, ACCEPTED)
    _, _, err = run("learn", file, "-d", "pump", "--url", stub.url, "--category", given)
    assert '--category has no effect on a detector that exists: "b" is not a category of it' in err


def test_retrain_starts_a_retraining_and_waits_for_its_outcome(run, stub):
    """`retrain` needs no file: it learns what is buffered, and says how the retraining ended."""
    labelled = "of 12 rows labelled normal, 0 still alarm"
    last = {"outcome": "promoted", "version": 4, "reasons": [], "labelled": labelled}
    stub.answers["POST", "/v1/detectors/pump/retrain"] = (200, {"last_retraining": last})
    status, out, _ = run("retrain", "pump", "--url", stub.url)
    assert (status, out) == (Exit.OK, f"retraining: promoted, version 4\n{labelled}\n")


def test_retrain_with_nothing_buffered_is_refused(run, stub):
    """Without buffered rows nothing is retrained. The outcome of an earlier one is not shown."""
    last = {"outcome": "promoted", "version": 5, "reasons": []}
    stub.answers["GET", "/v1/detectors/pump"] = (200, {**STATUS, "last_retraining": last})
    problem = {"title": "too few vectors", "detail": "0 are buffered", "buffered": 0, "needed": 32}
    stub.answers["POST", "/v1/detectors/pump/retrain"] = (409, problem)
    status, out, err = run("retrain", "pump", "--url", stub.url)
    assert (status, out) == (Exit.REFUSED, "")
    assert "0 are buffered" in err


def test_rows_that_another_retraining_took_are_no_error(run, stub, file):
    """If a trigger's retraining takes all rows before --now asks for one, its outcome is shown."""
    last = {"outcome": "promoted", "version": 5, "reasons": []}
    status = {**STATUS, "buffered": 2, "last_retraining": last}
    stub.answers["GET", "/v1/detectors/pump"] = (200, status)
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, ACCEPTED)
    stub.answers["POST", "/v1/detectors/pump/retrain"] = (409, {"buffered": 0, "needed": 32})
    exit_status, out, _ = run("learn", file, "-d", "pump", "--url", stub.url, "--now")
    assert exit_status == Exit.OK
    assert "retraining: promoted, version 5" in out


def test_a_repeated_batch_is_counted_as_duplicate(run, stub, file):
    """A repeated batch gets its first answer, and the command calls it a duplicate."""
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, {**ACCEPTED, "duplicate": 2})
    _, out, _ = run("learn", file, "-d", "pump", "--url", stub.url, "--json")
    expected = {"accepted": 0, "quarantined": 0, "duplicate": 2, "buffered": 0, "retraining": None}
    assert json.loads(out) == expected


def test_learn_names_the_rows_that_are_held_back(run, stub, file):
    """Rows that are held back are named, with the command that shows them."""
    status = {**STATUS, "waiting": "2 rows wait for a person"}
    stub.answers["GET", "/v1/detectors/pump"] = (200, status)
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, {**ACCEPTED, "quarantined": 2})
    _, _, err = run("learn", file, "-d", "pump", "--url", stub.url)
    assert "pump: 2 rows wait for a person; `anamnesis quarantine list pump` shows them" in err


def test_learn_says_that_a_first_training_needs_more_rows(run, stub, file):
    """Two rows of a detector without a version wait for more, and the message says so."""
    stub.answers["GET", "/v1/detectors/pump"] = (200, {**STATUS, "champion": None, "buffered": 2})
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, ACCEPTED)
    status, _, err = run("learn", file, "-d", "pump", "--url", stub.url)
    assert status == Exit.OK
    assert "nothing is learned yet; a training needs 32 rows, and 2 are buffered" in err


def test_learn_now_with_an_empty_buffer_is_no_error(run, stub, file):
    """If nothing is buffered, --now asks for no retraining and reports no error."""
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, {**ACCEPTED, "duplicate": 2})
    status, out, _ = run("learn", file, "-d", "pump", "--url", stub.url, "--now")
    assert status == Exit.OK
    assert "nothing is buffered" in out
    assert not [asked for asked in stub.asked if asked[1].endswith("/retrain")]


def test_equal_batches_of_one_file_have_different_keys(run, stub, tmp_path):
    """Equal batches of one file are all learned, because their keys differ."""
    np.save(tmp_path / "same.npy", np.ones((10_000, 2)))
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, ACCEPTED)
    run("learn", str(tmp_path / "same.npy"), "-d", "pump", "--url", stub.url)
    keys = {asked[2]["idempotency-key"] for asked in stub.asked if asked[0] == "POST"}
    assert len(keys) == 2


def test_rollback_promotes_the_parent_of_this_generation(run, stub):
    """The champion's parent is promoted, unless somebody moved the champion meanwhile."""
    stub.answers["GET", "/v1/detectors/pump/versions/3"] = (200, {"version": 3, "parent": 2})
    stub.answers["PUT", "/v1/detectors/pump/champion"] = (200, {"champion": 2, "generation": 5})
    status, out, _ = run("rollback", "pump", "--url", stub.url)
    assert status == Exit.OK
    assert "pump serves version 2 (generation 5)" in out
    _, _, headers, body = stub.asked[-1]
    assert json.loads(body) == {"version": 2, "why": ""}
    assert headers["if-match"] == '"4"'


def test_revoke_sends_its_options_and_prints_the_result(run, stub):
    """`revoke` takes a batch or a sender, and sends `--dry-run` and `--why` along."""
    some = {"vectors": 960, "batch_count": 24, "batches": ["b"], "senders": ["ann"]}
    discarded = {"buffered": 40, "quarantined": 2, "parked": 0, "kept": 9}
    answer = {"champion": 2, "generation": 5, "versions": [3, 4], "discarded": discarded}
    answer |= {"lost": some | {"vectors": 0, "batch_count": 0, "senders": []}, "relearned": some}
    stub.answers["POST", "/v1/detectors/pump/revoke"] = (200, answer)
    options = ("--sender", "bob", "--dry-run", "--why", "broken", "--url", stub.url)
    status, out, _ = run("revoke", "pump", *options)
    assert status == Exit.OK
    assert json.loads(stub.asked[-1][3]) == {
        "key": "bob", "why": "broken", "dry_run": True, "without_champion": False,
    }  # fmt: skip
    assert out.splitlines() == [
        "would be done: pump serves version 2; revoked: 3, 4",
        "discarded before they were learned: 42 vectors",
        "learned again: 960 vectors of others, in 24 batches of ann",
        "lost with them: 0 vectors of others, in 0 batches",
    ]
    stub.answers["POST", "/v1/detectors/pump/revoke"] = (200, answer | {"champion": None})
    status, out, _ = run("revoke", "pump", "--batch", "b", "--url", stub.url)
    assert out.startswith("pump serves no version; revoked: 3, 4")
    for wrong in ((), ("--batch", "b", "--sender", "bob")):
        assert run("revoke", "pump", *wrong, "--url", stub.url)[0] == Exit.USAGE


def test_detectors_as_table_and_json(run, stub):
    """People get a table, and scripts the service's own objects."""
    stub.answers["GET", "/v1/detectors"] = (200, {"detectors": [STATUS]})
    _, out, _ = run("detectors", "--url", stub.url)
    assert "pump" in out
    _, out, _ = run("detectors", "--url", stub.url, "--json")
    assert json.loads(out) == [STATUS]


def test_the_trail_of_the_keys_is_shown_without_a_detector(run, stub):
    """Without a detector the keys' trail is shown; a wrong entry makes --verify fail."""
    entry = {"seq": 1, "at": 0, "from": None, "to": {"name": "press"}, "action": "key created",
             "who": "command line", "why": "", "previous": "", "hash": "0" * 40}  # fmt: skip
    stub.answers["GET", "/v1/audit"] = (200, {"audit": [entry], "next": None})
    status, out, _ = run("audit", "--url", stub.url)
    assert status == Exit.OK
    assert "key created" in out
    assert run("audit", "--verify", "--url", stub.url)[0] == Exit.REFUSED


def test_a_public_address_needs_a_key(run, tmp_path):
    """An address that others can reach is refused without a key, unless --insecure is given."""
    status, _, err = run("up", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path))
    assert status == Exit.REFUSED
    assert "there are no API keys" in err
    assert "anamnesis keys create" in err


def test_keys_are_made_listed_and_revoked(run, tmp_path):
    """A key can be created before the service ever ran, and is shown only once."""
    where = ("--data-dir", str(tmp_path))
    scopes = ("--scope", "score", "--scope", "read")
    status, out, err = run("keys", "create", "press 7", *scopes, "--detector", "pump", *where)
    assert status == Exit.OK
    secret = out.strip()
    assert re.fullmatch(r"anm_[\w-]{43}", secret)
    assert f"no service uses {tmp_path} now" in err
    assert "the only key: from now on every request needs a key" in " ".join(err.split())
    status, out, _ = run("keys", "list", "--json", *where)
    (listed,) = json.loads(out)
    assert (listed["name"], listed["scopes"]) == ("press 7", ["read", "score"])
    assert listed["detectors"] == ["pump"]
    assert listed["id"] in err
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert listed["id"].encode() in stored
    assert secret.encode() not in stored
    status, out, _ = run("keys", "list", *where)
    assert listed["id"] in out
    assert run("keys", "revoke", listed["id"], *where)[0] == Exit.OK
    assert run("keys", "revoke", listed["id"], *where)[0] == Exit.REFUSED
    assert json.loads(run("keys", "list", "--json", *where)[1]) == []
    assert run("keys", "create", "x", "--scope", "root", *where)[0] == Exit.USAGE
    assert run("keys", "create", "x", *scopes, "--detector", "a/b", *where)[0] == Exit.USAGE


def test_a_new_key_is_not_called_the_only_one_beside_a_key_in_a_file(run, tmp_path, monkeypatch):
    """If a file holds a key, `create` does not say that the new key is the only one."""
    (tmp_path / "admin").write_text("x" * 40)
    monkeypatch.setenv("ANAMNESIS_ADMIN_KEY_FILE", str(tmp_path / "admin"))
    where = ("--data-dir", str(tmp_path / "data"))
    status, _, err = run("keys", "create", "press 7", "--scope", "read", *where)
    assert status == Exit.OK
    assert "only key" not in err


def test_an_error_about_a_key_names_the_options_of_the_command(run, stub):
    """The command names its own options, because the service's message is about a header."""
    stub.answers["GET", "/v1/attention"] = (401, {"detail": "This request needs an API key: ..."})
    status, _, err = run("status", "--url", stub.url)
    assert status == Exit.REFUSED
    assert "(a command takes the key from ANAMNESIS_KEY, or from --key)" in " ".join(err.split())


def test_commands_send_the_key(monkeypatch, tmp_path):
    """The key comes from `--key`, ANAMNESIS_KEY, ANAMNESIS_KEY_FILE or the admin's, in turn."""

    def sent_header(key: str | None) -> str | None:
        with console.client("http://x", key) as client:
            return client.http.headers.get("authorization")

    assert sent_header(None) is None
    for name, text in (("ANAMNESIS_ADMIN_KEY_FILE", "admin"), ("ANAMNESIS_KEY_FILE", "file")):
        (tmp_path / name).write_text(f"{text}\n")
        monkeypatch.setenv(name, str(tmp_path / name))
        assert sent_header(None) == f"Bearer {text}"
    monkeypatch.setenv("ANAMNESIS_KEY", "variable")
    assert sent_header(None) == "Bearer variable"
    assert sent_header("option") == "Bearer option"


def test_the_password_of_the_store_is_not_shown():
    """The summary shows the store's address without its password."""
    assert addresses.shown("redis://me:secret@store:6379/0") == "redis://me:***@store:6379/0"


def test_the_error_of_a_bad_row_counts_the_rows_sent_before(run, stub, tmp_path):
    """Rows of earlier batches stay sent, and the message says how many there are."""
    stub.answers["POST", "/v1/detectors/pump/normal"] = (202, {**ACCEPTED, "accepted": 5000})
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n" + "1,2\n" * 51_000 + "1,x\n")
    status, _, err = run("learn", str(path), "-d", "pump", "--url", stub.url)
    assert status == Exit.USAGE
    assert "50000 rows before it were sent" in err


@pytest.mark.parametrize(
    ("command", "rest"),
    [("quarantine list", ""), ("quarantine release", "7"), ("incidents", ""), ("drift", ""),
     ("label", "i7-1 normal")],
)  # fmt: skip
@pytest.mark.parametrize(
    "given", ["pump {}", "-d pump {}", "{} --detector pump", "{} --detector=pump"]
)
def test_a_detector_is_given_by_its_place_or_by_an_option(run, stub, command, rest, given):
    """`-d` names the detector in every command, also where a name alone is enough."""
    arguments = [*command.split(), *given.format(rest).split()]
    assert run(*arguments, "--url", stub.url)[0] == Exit.REFUSED  # the stub has no answer
    assert stub.asked[0][1].partition("?")[0].startswith("/v1/detectors/pump")


def test_a_table_is_shown_in_a_terminal_without_a_width(capsys, monkeypatch):
    """COLUMNS=0, as some terminals and editors set it, leaves the table as it is."""
    monkeypatch.setenv("COLUMNS", "0")
    console.show_table(("name", "why"), [("pump", None)])
    assert "pump" in capsys.readouterr().out


def test_a_table_in_a_narrow_terminal_cuts_no_cell(capsys, monkeypatch):
    """An id can be copied from a terminal of 80 columns, and no other cell loses a letter."""
    monkeypatch.setenv("COLUMNS", "80")
    row = ("9f86d081884c7d65", "X" * 40, "admin ingest label read score", "Y" * 40)
    console.show_table(("id", "name", "scopes", "detectors"), [row])
    printed = capsys.readouterr().out
    assert row[0] in printed
    assert (printed.count("X"), printed.count("Y"), printed.count("…")) == (40, 40, 0)


def test_status_says_which_detector_is_muted(run, stub):
    """A muted detector needs nobody, so `status` says that it is muted, by whom and why."""
    until = "2026-11-29T20:02:39.601Z"
    muted = {"name": "pump", "mute": {"until": until, "why": "a wash", "who": "key:1f"}}
    stub.answers["GET", "/v1/attention"] = (200, {"items": []})
    stub.answers["GET", "/v1/detectors"] = (200, {"detectors": [muted]})
    service = {"store": {"up": True, "refused": None}, "workers": [], "api": []}
    stub.answers["GET", "/v1/service"] = (200, service)
    status, printed, _ = run("status", "--url", stub.url)
    assert status == Exit.OK
    assert f"pump is muted until {until} by key:1f: a wash" in printed


def test_status_says_how_far_the_calibration_of_incidents_is(run, stub):
    """While the rate of false incidents is not known, `status` has both counts."""
    rule = {"counted_rows": 1200, "needed_rows": 43_200}
    pump = {"name": "pump", "incident_calibration": "insufficient", "incident_rule": rule}
    stub.answers["GET", "/v1/attention"] = (200, {"items": []})
    stub.answers["GET", "/v1/detectors"] = (200, {"detectors": [pump]})
    service = {"store": {"up": True, "refused": None}, "workers": [], "api": []}
    stub.answers["GET", "/v1/service"] = (200, service)
    _, printed, _ = run("status", "--url", stub.url)
    assert "not known yet; counted 1,200 of 43,200 normals" in printed


def test_drift_is_shown_in_words_with_units(run, stub):
    """`drift` says what to do first; then each test says what it measured, and in which unit."""
    share = {"statistic": 0.214, "threshold": 0.05, "alarm": True}
    statistics = {
        "martingale": {"statistic": 1.5, "threshold": 4.61, "alarm": False},
        "anomalies": share,
        "features": [{"feature": "heat", "statistic": 0.1, "threshold": 0.2, "alarm": False}],
    }
    report = {"state": "degraded", "at": "2026-11-29T20:02:39Z", "statistics": statistics}
    stub.answers["GET", "/v1/detectors/pump/drift"] = (200, report)
    _, printed, _ = run("drift", "pump", "--url", stub.url)
    lines = printed.splitlines()
    assert lines[1] == "Anomalies come in a burst. Do not learn now; look for the fault."
    assert any(
        line.startswith("anomalies among the latest rows") and "21.4 %" in line for line in lines
    )
    assert "1.5 nats" in printed
    assert "heat moved, at least" in printed


def test_status_has_the_fifty_worst_items_and_the_last_hour(run, stub):
    """Of many items the milder ones are only counted; each detector has its last hour."""
    items = [
        {"kind": "incident", "detector": "a", "sentence": f"odd {n}", "since": None, "path": "/"}
        for n in range(60)
    ]
    stub.answers["GET", "/v1/attention"] = (200, {"items": items})
    recent = {"champion_since": "2020-01-01T00:00:00Z", "rows": 200, "alarms": 5}
    stub.answers["GET", "/v1/detectors"] = (200, {"detectors": [{"name": "a", "recent": recent}]})
    service = {"store": {"up": True, "refused": None}, "workers": [], "api": []}
    stub.answers["GET", "/v1/service"] = (200, service)
    _, printed, _ = run("status", "--url", stub.url)
    assert "odd 49" in printed
    assert "odd 50" not in printed
    assert "10 items more: `anamnesis status --json`" in printed
    assert "2.5 %" in printed


def test_status_lists_fifty_detectors_that_need_a_person_first(run, stub):
    """Of many detectors the healthy ones are left out, so that the beginning stays in sight."""
    item = {"kind": "incident", "detector": "zz", "sentence": "odd", "since": None, "path": "/"}
    stub.answers["GET", "/v1/attention"] = (200, {"items": [item]})
    names = [f"m{n:02}" for n in range(60)] + ["zz"]
    stub.answers["GET", "/v1/detectors"] = (200, {"detectors": [{"name": name} for name in names]})
    service = {"store": {"up": True, "refused": None}, "workers": [], "api": []}
    stub.answers["GET", "/v1/service"] = (200, service)
    status, printed, _ = run("status", "--url", stub.url)
    assert status == Exit.ATTENTION
    first = [line.split()[0] for line in printed.splitlines() if line[:1] in {"m", "z"}]
    assert first == ["zz", *names[:49]] * 2
    assert "\n\n11 detectors more: `anamnesis detectors`" in printed


def test_text_from_requests_is_shown_as_text(capsys):
    """Text of others cannot move the cursor or set a colour or a link in the terminal."""
    evil = "a\x1b[2J\x07[red][link=http://evil.example]b[/link]\u202e\n"
    console.show_table(("name", "why"), [(evil, None)])
    console.show(evil)
    console.complain(evil[:-1])
    written = capsys.readouterr()
    safe = "a\\x1b[2J\\x07[red][link=http://evil.example]b[/link]\\u202e"
    assert (written.out.count(safe + "\\n"), written.err) == (2, f"anamnesis: {safe}\n")


def test_a_row_is_one_line_in_a_pipe(capsys, monkeypatch):
    """In a pipe, which has no width, no cell of a table is wrapped."""
    monkeypatch.delenv("COLUMNS", raising=False)
    console.show_table(("name", "why"), [("pump", "word " * 100)])
    assert len(capsys.readouterr().out.splitlines()) == 2
