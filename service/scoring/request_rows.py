"""Reads the rows of a request with their tags, and derives the features for the model."""

import re
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from models.arrays import Array
from models.config import Config
from models.context import OFF, SCORED, STATES, derive
from models.errors import VectorError
from service.domain.columns import Columns
from service.domain.raw_batch import RawBatch, RowDetails
from service.domain.row_rules import NO_RULES, RowRules
from service.domain.row_tags import NO_TAGS, RowTags, row_tags
from service.problems import BadVectors, Unprocessable
from service.scoring import json_vectors, pieces, vectors
from service.scoring.arrow_tables import read_arrow
from service.scoring.records import Records, records_of
from service.scoring.tables import ColumnRoles, read_csv
from service.scoring.text_encoding import foreign_encoding
from service.scoring.vectors import ARROW, CSV, JSON, NDJSON

FIELDS = ("vectors", "records", "timestamps", "sources", "ids", "context_rows")
NORMAL_FIELDS = (*FIELDS, "vouch")  # the fields of a normal batch
MOST_CONTEXT_ROWS = 1000
_OTHER_FIELDS = tuple(b'"%b"' % name.encode() for name in FIELDS[1:])
_EMPTY = msgspec.Raw()
_AT = re.compile(r"at `\$\.(\w+)")
_ENTRY = re.compile(r"at `\$\[(\d+)\]")
_BEGINS = {
    name: re.compile(rb'"%b"\s*:\s*(?=\[)' % name.encode()) for name in ("vectors", "records")
}


class RequestRows(NamedTuple):
    """Rows X (n, d) as the client sent them, their tags, and the number of context rows.

    `vouched` is True if the body says that a person vouches for all rows.
    """

    X: Array
    tags: RowTags = NO_TAGS
    context_rows: int = 0
    vouched: bool = False


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    vectors: msgspec.Raw = _EMPTY
    records: msgspec.Raw = _EMPTY
    timestamps: msgspec.Raw = _EMPTY
    sources: msgspec.Raw = _EMPTY
    ids: msgspec.Raw = _EMPTY
    context_rows: Annotated[int, msgspec.Meta(ge=0, le=MOST_CONTEXT_ROWS)] = 0


class _NormalBody(_Body, forbid_unknown_fields=True):
    vouch: bool = False


_body = msgspec.json.Decoder(_Body)
_normal_body = msgspec.json.Decoder(_NormalBody)
_times = msgspec.json.Decoder(list[str | float])
_texts = msgspec.json.Decoder(list[str])


def has_other_fields(body: bytes) -> bool:
    """Return whether a JSON body may have other fields than `vectors`."""
    if body.count(b'"') == 2 and b'"vectors"' in body:
        return False
    return any(name in body for name in _OTHER_FIELDS)


class ModelRows(NamedTuple):
    """The features X (m, w) of the rows that a model judges, and the tags of these rows.

    `states` (n,) has the state of every row of the request, as an index into
    `models.context.STATES`. It is None if the detector judges every row.
    """

    X: Array
    tags: RowTags = NO_TAGS
    states: npt.NDArray[np.uint8] | None = None


class NormalRows(NamedTuple):
    """A normal batch: all rows as `sent`, and the rows for the `model` that can be learned.

    `vouched` is True if a person vouches for all rows. `trace` is the trace id of the request. As
    long as the context of the detector is not chosen, `model` has the rows as they were sent.
    """

    model: ModelRows
    sent: RawBatch
    vouched: bool = False
    trace: str = ""


def read(
    kind: str,
    body: bytes,
    config: Config,
    roles: ColumnRoles,
    dimension: int | None,
    *,
    normal: bool = False,
) -> RequestRows:
    """Return the rows of a body of media type `kind` for a detector of `dimension` columns.

    Raises BadVectors with row and column. `roles` names the special columns of a table. If
    `normal`, the body may have the field `vouch` too.
    """
    gaps = config.missing == "impute"
    if kind == JSON and (has_other_fields(body) or (normal and b'"vouch"' in body)):
        rows = _read_json(body, dimension, config, roles, normal=normal)
    elif kind == NDJSON:
        reader = records_of(Columns.of(config), gaps=gaps, extra=roles.extra)
        rows = RequestRows(*reader.read_lines(body))
    elif kind in (CSV, ARROW):
        reads = read_csv if kind == CSV else read_arrow
        rows = RequestRows(*reads(body, Columns.of(config), roles, gaps=gaps))
    else:
        check_by_position(config)
        return RequestRows(vectors.matrix(kind, body, dimension, gaps=gaps))
    vectors.check(rows.X, dimension, gaps=gaps)
    return rows


def check_by_position(config: Config) -> None:
    """Raise Unprocessable if a column is a category: only rows by name can hold words."""
    if config.words:
        raise Unprocessable(
            "A detector with a category among its columns takes rows by name: `records`, "
            f"{NDJSON}, {CSV} or {ARROW}."
        )


def labelled_rows(X: Array) -> NormalRows:
    """Return a normal batch of features X (n, w) that a person labelled normal."""
    return NormalRows(ModelRows(X), RawBatch(X, None))


def normal_rows(
    kind: str, body: bytes, config: Config, roles: ColumnRoles, rules: RowRules = NO_RULES
) -> NormalRows:
    """Return the rows of a normal batch that can be learned. Raises BadVectors.

    A row with missing values can be learned if at least half of its values were observed.
    """
    rows = read(kind, body, config, roles, config.dimension, normal=True)
    few = 2 * np.isnan(rows.X).sum(axis=1) > rows.X.shape[1]
    if few.any():
        row = int(few.argmax())
        seen = int((~np.isnan(rows.X[row])).sum())
        raise BadVectors(
            f"{seen} of {rows.X.shape[1]} numbers were observed; a row with fewer than half is "
            "not learned.",
            row=row,
        )
    if config.context == "auto":
        tags, n = rows.tags, len(rows.X)
        off = rules.off_rows(rows.X, config.column_names(rows.X.shape[1]))
        details = RowDetails.of(tags.timestamps, tags.sources, rows.context_rows, off, n)
        return NormalRows(ModelRows(rows.X, tags), RawBatch(rows.X, details), rows.vouched)
    return NormalRows(model_rows(rows, config, rules), RawBatch(rows.X, None), rows.vouched)


def not_learned(rows: ModelRows) -> dict[str, dict[str, int]]:
    """Return the field `not_learned` of an answer: the number of unjudged rows by state."""
    if rows.states is None:
        return {}
    states, counts = np.unique(rows.states[rows.states != SCORED], return_counts=True)
    return {
        "not_learned": {
            STATES[state]: count
            for state, count in zip(states.tolist(), counts.tolist(), strict=True)
        }
    }


def model_rows(rows: RequestRows, config: Config, rules: RowRules) -> ModelRows:
    """Return the rows that the model judges: those that are on and have a whole context."""
    tags, names = rows.tags, config.column_names(config.width or rows.X.shape[1])
    off = rules.off_rows(rows.X, names)
    context = config.derived_by
    if context is None:
        if rows.context_rows:
            raise BadVectors("`context_rows` needs a detector with `context` in its config.")
        if not rules:
            return ModelRows(rows.X, tags)
        states = np.full(len(rows.X), SCORED, np.uint8)
        if off is not None:
            states[off] = OFF
        judged = states == SCORED
        return ModelRows(rows.X[judged], tags.take(judged), states)
    try:
        features, states = derive(
            context,
            rows.X,
            config.numbers(rows.X.shape[1]),
            times=tags.timestamps,
            sources=tags.sources,
            context_rows=rows.context_rows,
            left_out=off,
        )
    except VectorError as error:
        raise BadVectors(f"{error}.") from None
    judged = states == SCORED
    return ModelRows(features[judged], tags.take(judged), states)


def _read_json(
    body: bytes, dimension: int | None, config: Config, roles: ColumnRoles, *, normal: bool
) -> RequestRows:
    """Return the rows of a JSON body with `vectors` or `records`, and its other fields."""
    gaps = config.missing == "impute"
    reader = None
    if config.names is not None:
        reader = records_of(Columns.of(config), gaps=gaps, extra=roles.extra)
    try:
        decoded = (_normal_body if normal else _body).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        known = NORMAL_FIELDS if normal else FIELDS
        raise _decoding_problem(error, body, dimension, reader, known, gaps=gaps) from None
    _check_once(body)
    by_position, by_name = bytes(decoded.vectors), bytes(decoded.records)
    if bool(by_position) == bool(by_name):
        raise BadVectors("Give one of `vectors` and `records`.")
    if by_name:
        if reader is None:
            Columns.of(config)  # raises an error that names what is missing
            raise AssertionError("a detector with names has a reader")
        X = reader.read(by_name)
    else:
        check_by_position(config)
        X = json_vectors.read(b'{"vectors":%b}' % by_position, dimension, gaps=gaps)
    tags = row_tags(
        len(X),
        _entries_of("timestamps", decoded.timestamps),
        _entries_of("sources", decoded.sources),
        _entries_of("ids", decoded.ids),
    )
    vouched = isinstance(decoded, _NormalBody) and decoded.vouch
    return RequestRows(X, tags, decoded.context_rows, vouched)


def _entries_of(name: str, raw: msgspec.Raw) -> list[Any] | None:
    """Return the entries of a field with one for each row, None if it is not given."""
    text = bytes(raw)
    if text in (b"", b"null"):
        return None
    expected = "RFC 3339, or seconds since 1970" if name == "timestamps" else "a string"
    decoder: msgspec.json.Decoder[Any] = _times if name == "timestamps" else _texts
    entries: list[Any] = []
    for piece in pieces.lists(text):
        pieces.check_length(piece, len(entries))
        try:
            entries += decoder.decode(piece)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            at = _ENTRY.search(str(error))
            row = None if at is None else len(entries) + int(at[1])
            raise BadVectors(f"`{name}`: each is {expected}.", row=row) from None
        pieces.check_rows(len(entries))
    return entries


def _check_once(body: bytes) -> None:
    """Raise BadVectors if a field is given twice: readers would differ in which one they take."""
    if all(body.count(b'"%b"' % name.encode()) <= 1 for name in NORMAL_FIELDS):
        return
    names: set[str] = set()
    for name in pieces.names(body):
        if name in names:
            raise BadVectors(f"`{name}` is given more than once.")
        names.add(name)


def _decoding_problem(
    error: Exception,
    body: bytes,
    dimension: int | None,
    reader: Records | None,
    known: tuple[str, ...],
    *,
    gaps: bool,
) -> BadVectors:
    """Return the problem that a decoder's `error` about `body` means. `known` are its fields."""
    text = str(error)
    if text.startswith("Object contains unknown field"):
        return BadVectors(f"Unknown field; the fields are {', '.join(known)}.")
    if isinstance(error, msgspec.ValidationError):
        at = _AT.search(text)
        if at is None or at[1] not in known:
            return BadVectors('The body is not of the form {"vectors": [[...], ...]}.')
        if at[1] == "context_rows":
            return BadVectors(f"`context_rows` is a whole number from 0 to {MOST_CONTEXT_ROWS}.")
        return BadVectors("`vouch` is true or false.")
    return _malformed_problem(body, dimension, reader, gaps=gaps)


def _malformed_problem(
    body: bytes, dimension: int | None, reader: Records | None, *, gaps: bool
) -> BadVectors:
    """Return the problem for invalid JSON. For NaN and Infinity it names row and column."""
    if (words := foreign_encoding(body)) is not None:
        return BadVectors(words)
    try:
        if reader is not None and (begin := _BEGINS["records"].search(body)):
            reader.read(body[begin.end() :])
        if begin := _BEGINS["vectors"].search(body):
            json_vectors.read(b'{"vectors":' + body[begin.end() :], dimension, gaps=gaps)
    except BadVectors as problem:
        if problem.row is not None:
            return problem
    return BadVectors("The JSON is malformed.")
