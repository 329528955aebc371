"""Image columns of Arrow IPC files, as Hugging Face stores datasets, and of tables in memory."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

from imatlas.errors import Notice, SourceError
from imatlas.images.sources.user_input import IMAGE_COLUMNS


class ArrowColumn:
    """The column of an Arrow file that holds images: bytes, a struct of bytes and path, or paths; read item by item.

    Parameters
    ----------
    path : Path
        An Arrow IPC file or stream; it is memory-mapped.
    field : str, optional
        The column; by default one with bytes or a usual name.

    Raises
    ------
    SourceError
        If it is not an Arrow file, or has no such column.
    """

    def __init__(self, path: Path, field: str | None = None) -> None:
        import pyarrow as pa

        self._path, self._field = path, field
        source = pa.memory_map(str(path))
        try:
            if _is_packed(source):
                raise SourceError(
                    f"'{path}' has compressed buffers, which are not supported; write it without compression."
                )
            source.seek(0)
            try:
                table = pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid:
                source.seek(0)
                table = pa.ipc.open_stream(source).read_all()
        except (pa.ArrowException, OSError, struct.error) as error:
            if isinstance(error, SourceError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise SourceError(f"'{path}' is not a readable Arrow file ({reason}); is it complete?") from error
        self._column = column_at(table, image_column(table, field, str(path)))

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: int) -> Any:
        return self._column[index].as_py()

    def __reduce__(self) -> Any:
        return (ArrowColumn, (self._path, self._field))


def _is_packed(source: Any) -> bool:
    """Whether any batch is compressed; its unpacked size would be unknown."""
    import pyarrow as pa

    source.seek(8 if source.read(6) == b"ARROW1" else 0)  # after its signature a file is a stream
    for message in pa.ipc.MessageReader.open_stream(source):
        about = memoryview(message.metadata)
        header = _field(about, int.from_bytes(about[:4], "little"), 2)
        if message.type == "dictionary":
            header = None if header is None else _field(about, header, 1)
        if (
            message.type in ("record batch", "dictionary")
            and header is not None
            and _field(about, header, 3) is not None
        ):
            return True
    return False


def _field(about: memoryview, table: int, number: int) -> int | None:
    """The offset of a table that is a field of a flatbuffer table; None if it is missing."""
    (back,) = struct.unpack_from("<i", about, table)
    place = table - back
    (size,) = struct.unpack_from("<H", about, place)
    if 4 + 2 * number >= size:
        return None
    (offset,) = struct.unpack_from("<H", about, place + 4 + 2 * number)
    return table + offset + struct.unpack_from("<I", about, table + offset)[0] if offset else None


def holds_files(kind: Any) -> bool:
    """Whether an Arrow type holds the bytes of files: binary, or a struct with a field 'bytes' (Hugging Face)."""
    import pyarrow.types as t

    if t.is_struct(kind):
        return any(kind.field(i).name == "bytes" and holds_files(kind.field(i).type) for i in range(kind.num_fields))
    return t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind)


def columns_of_files(schema: Any) -> list[str]:
    """The columns that hold the bytes of files; a field of a struct as a path, such as "photo.front"."""
    import pyarrow.types as t

    found = []
    for field in schema:
        if holds_files(field.type):
            found.append(field.name)
        elif t.is_struct(field.type):
            inner = [field.type.field(i) for i in range(field.type.num_fields)]
            found += [f"{field.name}.{name}" for name in columns_of_files(inner)]
    return found


def type_at(schema: Any, column: str) -> Any:
    """The type of a column, or of a nested field by its path."""
    if column in schema.names:
        return schema.field(column).type
    first, *rest = column.split(".")
    kind = schema.field(first).type
    for name in rest:
        kind = kind.field(name).type
    return kind


def column_at(table: Any, column: str) -> Any:
    """A column of a table, or a nested field by its path."""
    import pyarrow.compute as pc

    if column in table.column_names:
        return table[column]
    first, *rest = column.split(".")
    return pc.struct_field(table[first], rest)


def warn_of_choice(found: list[str], chosen: str, name: str) -> None:
    """Warn which of several image columns was chosen."""
    others = [f"'{column}'" for column in found if column != chosen]
    if others:
        warnings.warn(
            f"The images of '{name}' are read from the column '{chosen}'; {', '.join(others)} contain bytes too; "
            "choose a column by 'field' (--field).",
            Notice,
            stacklevel=2,
        )


def chosen_column(schema: Any, field: str | None, name: str) -> str:
    """The column of a file with a schema that holds the bytes of images: `field`, or the likeliest.

    Raises
    ------
    SourceError
        If there is none.
    """
    found = columns_of_files(schema)
    if field is not None:
        if field not in found:
            raise SourceError(
                f"The column '{field}' of '{name}' contains no image bytes; columns that do: "
                f"{', '.join(found) or 'none'}."
            )
        return field
    if not found:
        raise SourceError(
            f"No column of '{name}' contains image bytes (columns: {', '.join(schema.names)}); one must be binary, or "
            "a struct with a field 'bytes'. If a column contains paths, give those files."
        )
    chosen = next((name for name in IMAGE_COLUMNS if name in found), found[0])
    warn_of_choice(found, chosen, name)
    return chosen


def image_column(table: Any, field: str | None, name: str) -> str:
    """The column of a table that holds images.

    Raises
    ------
    SourceError
        If there is none, or it is ambiguous.
    """
    if field is not None:
        if field not in table.column_names and field not in columns_of_files(table.schema):
            raise SourceError(f"'{name}' has no column '{field}'; its columns: {', '.join(table.column_names)}.")
        return field

    found = columns_of_files(table.schema)
    named = [column for column in IMAGE_COLUMNS if column in (found or table.column_names)]
    if named or len(found) == 1:
        chosen = named[0] if named else found[0]
        warn_of_choice(found, chosen, name)
        return chosen
    raise SourceError(
        f"The image column of '{name}' is ambiguous (columns: {', '.join(table.column_names)}); name it by 'field' "
        "(--field)."
    )
