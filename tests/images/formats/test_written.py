"""Files of every format over its options are read with the pixels that were written, within the codec's loss."""

from __future__ import annotations

from tests.images.formats.tiffs import difference
from tests.images.formats.written import written

NAMES = {"TGA": "a.tga", "PCX": "a.pcx"}


def test_pixels_are_those_that_were_written_in_every_format() -> None:
    wrong, formats = [], {}
    for case in written():
        format = case.name.partition(",")[0]
        formats[format] = formats.get(format, 0) + 1
        fault = difference(case, name=NAMES.get(format, ""))
        wrong += [f"{case.name}: {fault}"] if fault else []
    assert wrong == []
    assert sum(formats.values()) >= 175  # and those of `test_tiff`
    assert len(formats) >= 13
