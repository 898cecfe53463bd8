"""Reads rows by name from an Arrow IPC stream."""

import struct
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from models.arrays import Array
from models.categories import LONGEST_WORD
from models.columns import as_word
from service.domain.cells import BadCell
from service.domain.columns import Columns, value_in
from service.domain.row_tags import LONGEST, RowTags
from service.domain.words import SEEN
from service.problems import BadVectors, TooLarge, UnsupportedMedia
from service.scoring.arrow_messages import declared
from service.scoring.pieces import check_rows
from service.scoring.tables import Blocks, ColumnRoles

MOST_BYTES = 2**27  # of a stream after decompression, and of its rows as float32
_SLICE = 10_000  # values that become Python objects in one call, which holds the interpreter lock
_BYTES_OF_A_CHARACTER = 4  # at most, in UTF-8


def read_arrow(
    body: bytes, columns: Columns, roles: ColumnRoles, *, gaps: bool
) -> tuple[Array, RowTags]:
    """Return the rows (n, d) of an Arrow IPC stream, and their tags.

    Raises BadVectors, or TooLarge for a stream that declares more than the bounds allow.
    """
    blocks = Blocks(columns, gaps=gaps)
    tags: dict[str, list[Any]] = {name: [] for name in roles.tag_columns}
    rows = 0
    for batch in _batches(body, columns, roles):

        def values(name: str, kind: str, batch: Any = batch) -> npt.NDArray[np.float64]:
            return _column_values(batch.column(name), kind)

        blocks.add(len(batch), values)
        for name in tags:
            try:
                tags[name] += _column_tags(batch.column(name))
            except BadCell as error:
                row = rows + error.row
                raise BadVectors(f"{value_in(name)} {error}.", row=row) from None
        rows += len(batch)
    X = blocks.matrix()
    return X, roles.tags(len(X), tags)


def _batches(body: bytes, columns: Columns, roles: ColumnRoles) -> Iterator[Any]:
    """Yield the batches of a stream, with the columns that the detector and `roles` name."""
    try:
        import pyarrow as pa  # optional, and slow to import
        from pyarrow import ipc
    except ImportError:
        raise UnsupportedMedia(
            "This service cannot read Arrow: pyarrow is not installed."
        ) from None
    try:
        _check_sizes(ipc.MessageReader.open_stream(pa.py_buffer(body)), len(columns.names))
        schema = ipc.open_stream(body).schema
        roles.check(schema.names, columns)
        fields = {schema.get_field_index(name) for name in (*columns.names, *roles.tag_columns)}
        options = ipc.IpcReadOptions(included_fields=sorted(fields))
        for batch in ipc.open_stream(body, options=options):
            batch.validate(full=True)
            yield batch
    except MemoryError:  # Arrow's MemoryError is an ArrowException too
        raise
    except (pa.ArrowException, OSError, ValueError, struct.error):
        raise BadVectors("The body is not an Arrow IPC stream.") from None


def _check_sizes(messages: Any, width: int) -> None:
    """Raise TooLarge if the messages declare more rows or bytes than the bounds allow."""
    rows = size = words = 0
    while True:
        try:
            message = messages.read_next_message()
        except StopIteration:
            return
        sizes = declared(memoryview(message.metadata), memoryview(message.body or b""))
        check_rows(sizes.rows)
        if sizes.dictionary:
            words += sizes.size
        else:
            rows += max(sizes.rows, 0)
            check_rows(rows)
        # With each batch its dictionaries are checked anew.
        size += sizes.size + (0 if sizes.dictionary else words)
        if max(size, 4 * rows * width) > MOST_BYTES:
            raise TooLarge(
                f"An Arrow stream has at most {MOST_BYTES} bytes when it is decompressed. "
                "Send it in parts.",
                limit=MOST_BYTES,
            )


def _column_values(column: Any, kind: str) -> npt.NDArray[np.float64]:
    """Return the values of a column of type `kind`, NaN for a missing one. Raises BadCell."""
    import pyarrow as pa

    if kind == "category":
        return _word_codes(_as_objects(column, LONGEST_WORD))
    kinds, type_ = pa.types, column.type
    number = kinds.is_integer(type_) or kinds.is_floating(type_) or kinds.is_decimal(type_)
    if not (number or (kind == "flag" and kinds.is_boolean(type_))):
        raise BadCell(0, "has an Arrow type that is not numeric")
    whole = column.cast(pa.float64(), safe=False)
    return np.asarray(whole.to_numpy(zero_copy_only=False), np.float64)


def _column_tags(column: Any) -> Iterable[Any]:
    """Return times as seconds since 1970, and other tags as they are. Raises BadCell."""
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        return _as_objects(column, LONGEST)
    whole = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64())
    return (None if micros is None else micros / 1e6 for micros in _as_objects(whole, LONGEST))


def _as_objects(column: Any, longest: int) -> Iterator[Any]:
    """Yield the values of an Arrow array as objects of Python.

    Raises BadCell for a text of more than `longest` characters, before it becomes an object: in
    some types one long text can stand for all rows.
    """
    import pyarrow as pa

    kinds = pa.types
    if kinds.is_dictionary(column.type):
        return _dictionary_values(column, longest)
    sizes = _text_sizes(column)
    if sizes is not None and len(long := np.flatnonzero(sizes > _BYTES_OF_A_CHARACTER * longest)):
        raise BadCell(int(long[0]), f"has more than {longest} characters")
    type_ = column.type
    number = kinds.is_integer(type_) or kinds.is_floating(type_)
    if sizes is None and not (number or kinds.is_boolean(type_) or kinds.is_null(type_)):
        raise BadCell(0, "has an Arrow type that is neither text nor numeric")
    starts = range(0, len(column), _SLICE)
    return chain.from_iterable(column.slice(start, _SLICE).to_pylist() for start in starts)


def _dictionary_values(column: Any, longest: int) -> Iterator[Any]:
    """Yield the values of a dictionary array. Each word that is used becomes one object."""
    known: dict[int | None, Any] = {None: None}
    for row, place in enumerate(_as_objects(column.indices, longest)):
        if place not in known:
            try:
                (known[place],) = _as_objects(column.dictionary.slice(place, 1), longest)
            except BadCell as error:
                raise BadCell(row, str(error)) from None
        yield known[place]


def _text_sizes(column: Any) -> npt.NDArray[np.int64] | None:
    """Return the bytes of each text, (n,); None for an array of another type."""
    import pyarrow as pa
    from pyarrow import compute

    if pa.types.is_string_view(column.type):
        views = np.frombuffer(column.buffers()[1], "<i4")[::4]  # each begins with its size
        sizes = views[column.offset : column.offset + len(column)].astype(np.int64)
        sizes[np.asarray(column.is_null())] = 0
        return sizes
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.asarray(compute.binary_length(column).fill_null(0), np.int64)
    return None


def _word_codes(values: Iterable[object]) -> npt.NDArray[np.float64]:
    """Return the codes of the words of a column, NaN for a missing word. Raises BadCell."""
    known: dict[str | None, float] = {None: np.nan}
    codes: list[float] = []
    for row, value in enumerate(values):
        word = as_word(value)
        if word not in known:
            if word is None or not 1 <= len(word) <= LONGEST_WORD:
                raise BadCell(row, f"is not a word of 1 to {LONGEST_WORD} characters")
            known[word] = SEEN.code(word)
        codes.append(known[word])
    return np.array(codes)
