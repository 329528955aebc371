"""Files of compressed images as a source of images, like any archive."""

from __future__ import annotations

import threading

from imatlas.errors import DecodeError, InputError, SourceError
from imatlas.images.sources.archives import Archive
from imatlas.tasks.coded_file import CodedFile, Entry
from imatlas.tasks.decompress import Decoded, codec_of


class CodedSource(Archive):
    """The images of a file of compressed images, each as the PNG or TIFF that `decompress_images` writes.

    Raises
    ------
    InputError
        If the file is damaged, or was written with a model that it does not hold.
    SourceError
        If it has no images.
    """

    explicit = True

    def _connect(self) -> None:
        assert self.root is not None
        file = CodedFile.open(self.root)
        taken: dict[str, int] = {}
        members = sorted((self._unique(entry.key, taken), i) for i, entry in enumerate(file.entries))
        members = self._without_own_output(members)
        if not members:
            raise SourceError(f"There are no images in '{self.root}'.")
        self.keys = [key for key, _ in members]
        self._entries: list[Entry] = [file.entries[i] for _, i in members]
        if not file.is_complete:
            self.skipped.append(("(end of the file)", "it is cut off; the images that followed are lost"))
        self._decoded = Decoded(file, codec_of(file))
        self._lock = threading.Lock()  # decoding uses all cores, and images of one record are decoded once

    def stamps(self) -> list[tuple[int, int]]:
        """Number in its record, and the record's checksum, of each image."""
        return [(entry.number, entry.checksum) for entry in self._entries]

    def packed(self, index: int) -> int:
        """The bytes that an image takes in the file, on average of its record."""
        return self._entries[index].size

    def _read(self, index: int, size: int | None) -> bytes:
        entry = self._entries[index]
        try:
            with self._lock:
                return self._decoded.encoded([entry])[0].content[:size]
        except InputError as error:
            raise DecodeError(str(error)) from None
