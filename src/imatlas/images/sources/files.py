"""Files on disk as a source: from a folder, a pattern, or a list."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Sequence
from io import FileIO
from pathlib import Path

from imatlas.errors import DecodeError, SourceError
from imatlas.images import memory_budget
from imatlas.images.formats.sniff import has_image_name
from imatlas.images.keys import key_of
from imatlas.images.sources.base import HEAD, check_size, check_unpacked, reason_of
from imatlas.images.sources.origin import Origin, fixed_part, located
from imatlas.images.sources.own_output import NOT_A_SOURCE, own_around, own_export, own_folder

# Without O_NONBLOCK a named pipe among the files would block.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def _unreadable(root: Path) -> list[tuple[str, str]]:
    """The folders directly below `root`, and `root`, that cannot be listed: `glob` ignores them silently."""
    found = []
    for folder in (root, *(p for p in _folders_of(root))):
        try:
            with os.scandir(folder):
                pass
        except OSError as error:
            key = key_of(os.path.relpath(folder, root)) + "/"
            found.append((key, f"the folder cannot be read ({reason_of(error)})"))
    return found


def _folders_of(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except OSError:
        return []


def _without_links(root: Path, paths: list[str], linked: Iterable[str], skipped: list[tuple[str, str]]) -> list[str]:
    """The paths except for links to others among them, which are recorded as skipped."""
    gone, real, listed = set(), os.path.realpath(root), set[str]()
    for link in linked:
        listed = listed or {os.path.normpath(os.path.relpath(path, root)) for path in paths}
        target = os.path.relpath(os.path.realpath(link), real)
        if target in listed and target != os.path.normpath(os.path.relpath(link, root)):
            gone.add(link)
            skipped.append(
                (key_of(os.path.relpath(link, root)), f"a link to '{key_of(target)}', which is included already")
            )
    return [path for path in paths if path not in gone] if gone else paths


class FileSource:
    """Files on disk: of a folder and all folders below, of a pattern, or of a list."""

    def __init__(
        self,
        root: Path,
        paths: Iterable[str],
        name: str,
        skipped: list[tuple[str, str]],
        explicit: bool = False,
        files: str = "",
        ordered: bool = False,
    ) -> None:
        self.explicit = explicit
        self._files = files
        self.root: Path | None = root
        self.name = name
        self.skipped = skipped
        base = str(root)
        found: dict[str, str] = {}
        for path in paths:
            key = key_of(os.path.relpath(path, base))
            if key in found:
                self.skipped.append((key, "listed twice; used once"))
            found[key] = path
        self.keys = list(found) if explicit or ordered else sorted(found)
        self.holds_arrays = not any(has_image_name(key) for key in self.keys)
        self._paths = [found[key] for key in self.keys]

    @property
    def origin(self) -> Origin:
        """The folder that the keys are relative to; for a single listed file, the file."""
        if self.explicit and len(self._paths) == 1:
            return Origin(located(self._paths[0]))
        return Origin(located(self.root or ""), self._files)

    @classmethod
    def from_folder(cls, root: Path) -> FileSource:
        """All files below `root`; links are followed, and each folder is entered once."""
        paths: list[str] = []
        skipped: list[tuple[str, str]] = []
        entered: dict[tuple[int, int], str] = {}
        waiting, linked = [str(root)], list[str]()
        while waiting:
            folder = waiting.pop()
            key = key_of(os.path.relpath(folder, root)) + "/"
            try:
                status = os.stat(folder)
                first = entered.setdefault((status.st_dev, status.st_ino), key)
                if first != key:
                    skipped.append((key, f"a link to a folder that is included already as '{first}'"))
                    continue
                # Real folders first, so that the target of a link keeps its own name.
                with os.scandir(folder) as entries:
                    links: list[str] = []
                    for entry in sorted(entries, key=lambda e: e.name, reverse=True):
                        if entry.is_dir():
                            what = own_folder(entry.path) or own_export(entry.path)
                            if what:
                                skipped.append(
                                    (key_of(os.path.relpath(entry.path, root)) + "/", NOT_A_SOURCE.format(what))
                                )
                                continue
                            (links if entry.is_symlink() else waiting).append(entry.path)
                        else:
                            paths.append(entry.path)
                            if entry.is_symlink():
                                linked.append(entry.path)
                    waiting[:0] = links
            except OSError as error:
                skipped.append((key, f"the folder cannot be read ({reason_of(error)})"))
        paths = _without_links(root, paths, linked, skipped)
        if not paths and skipped:
            raise SourceError(f"Nothing in '{root}' can be read: {skipped[0][0]} {skipped[0][1]}.")
        if not paths:
            raise SourceError(f"There are no files in '{root}'; give a folder with images.")
        return cls(root, paths, str(root), skipped)

    @classmethod
    def from_pattern(cls, pattern: str) -> FileSource:
        """All files that match a glob pattern; `**` descends into folders."""
        root = fixed_part(pattern)
        found = glob.glob(pattern, recursive=True)
        known: dict[str, tuple[str, str]] = {}
        around = {p: own_around(p if os.path.isdir(p) else os.path.dirname(p), str(root), known) for p in found}
        paths = [p for p in found if not os.path.isdir(p) and not around[p][1]]
        if not os.path.lexists(root):
            raise SourceError(f"There is no folder '{root}' for the pattern '{pattern}'; check the pattern.")
        skipped = _unreadable(root)
        for folder, what in sorted({own for own in around.values() if own[1]}):
            skipped.append((key_of(os.path.relpath(folder or ".", root)) + "/", NOT_A_SOURCE.format(what)))
        paths = _without_links(root, paths, filter(os.path.islink, paths), skipped)
        if not paths:
            if skipped:
                raise SourceError(f"No file matches '{pattern}', and {skipped[0][0]} {skipped[0][1]}.")
            raise SourceError(f"No file matches '{pattern}'; check the pattern, and use ** to descend into folders.")
        return cls(root, paths, pattern, skipped, files=os.path.relpath(pattern, root))

    @classmethod
    def from_list(cls, paths: list[Path]) -> FileSource:
        """These files; the keys are relative to their common folder."""
        absolute = [os.path.abspath(p) for p in paths]
        try:
            root = os.path.commonpath([os.path.dirname(p) for p in absolute])
        except ValueError:  # several drives
            root = ""
        name = str(paths[0]) if len(paths) == 1 else f"a list of {len(set(absolute))} files"
        return cls(Path(root), absolute, name, [], explicit=True, files=f"a list of {len(paths)}")

    @classmethod
    def from_several(cls, sources: Sequence[FileSource], skipped: list[tuple[str, str]]) -> FileSource:
        """The files of several sources, in order; the keys are relative to their common folder."""
        root = Path(os.path.commonpath([located(source.root or "") for source in sources]))
        paths, linked = list[str](), list[str]()
        for source in sources:
            own = list(dict.fromkeys(os.path.abspath(path) for path in source._paths))  # a stack has several rows
            paths += own
            linked += [] if source.explicit else filter(os.path.islink, own)
            base = key_of(os.path.relpath(located(source.root or ""), root))
            skipped += [(key if base == "." else f"{base}/{key}", reason) for key, reason in source.skipped]
        paths = _without_links(root, paths, linked, skipped)
        explicit = all(source.explicit for source in sources)
        name = f"{len(sources)} sources in '{root}'"
        return cls(root, paths, name, skipped, explicit, files=f"of {len(sources)} sources", ordered=True)

    def stamps(self) -> list[tuple[int, int]] | None:
        """Size and modification time of each file; (-1, -1) if unknown."""
        return [self._stamp(path) for path in self._paths]

    @staticmethod
    def _stamp(path: str) -> tuple[int, int]:
        try:
            status = os.stat(path)
        except OSError:
            return (-1, -1)
        return (status.st_size, status.st_mtime_ns)

    def path(self, index: int) -> Path:
        """The path of an item."""
        return Path(self._paths[index])

    def head(self, index: int) -> bytes:
        """The first bytes of a file."""
        return self._read(index, HEAD)

    def packed(self, index: int) -> int | None:
        """The bytes that a file takes on disk."""
        try:
            return _on_disk(os.stat(self._paths[index]))
        except OSError:
            return None

    def read(self, index: int) -> bytes:
        """The bytes of a file."""
        return self._read(index, None)

    def open(self, index: int) -> FileIO:
        """A file, opened for reading: one of any size, such as a video, is not read as a whole."""
        try:
            file = FileIO(os.open(self._paths[index], _OPEN_FLAGS), "rb")
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.close()
                raise DecodeError("not a regular file")
            return file
        except FileNotFoundError:
            broken = os.path.islink(self._paths[index])
            raise DecodeError("a broken link" if broken else "no such file") from None
        except OSError as error:
            raise DecodeError(f"cannot be read ({reason_of(error)})") from None

    def _read(self, index: int, size: int | None) -> bytes:
        with self.open(index) as file:
            try:
                status = os.fstat(file.fileno())
                if size is None:
                    check_size(status.st_size)
                    check_unpacked(status.st_size, _on_disk(status), remedy="fill its holes by copying it")
                    memory_budget.content(status.st_size)
                return file.read(status.st_size + 1 if size is None else size) or b""
            except OSError as error:
                raise DecodeError(f"cannot be read ({reason_of(error)})") from None


def _on_disk(status: os.stat_result) -> int:
    """The bytes that a file takes on disk, which is less than its size if it is sparse."""
    blocks = getattr(status, "st_blocks", 0)  # 0 also if the file system does not report it
    return min(status.st_size, 512 * blocks) if blocks else status.st_size
