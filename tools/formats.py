"""Test every supported format: `python tools/formats.py [--share 1.0] [--write docs/formats.md]`.

Files are written by Pillow, tifffile, pillow-heif and byte by byte over all their options, read, compared with what was
written, and read again by a process without the extras. Prints the tables of docs/formats.md, or writes them between
its marks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]
EXTRAS = {"imagecodecs": "codecs", "pillow_heif": "heif"}
NAMES = {"TGA": "a.tga", "PCX": "a.pcx"}
PICTURES, SAMPLES = "Pictures", "TIFF: sample layouts"
DEPTHS, PACKINGS = "TIFF: bit depths", "TIFF: compressions (with every predictor, in strips, tiles and planes)"
TABLES = (PICTURES, SAMPLES, DEPTHS, PACKINGS)
BEGIN, END = "<!-- by tools/formats.py -->", "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="fraction of the TIFF combinations")
    parser.add_argument("--write", type=Path, help="the page whose tables are updated")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:  # the process without extras
        print(json.dumps(_without_extras(options.folder)))
        return
    warnings.simplefilter("ignore")
    text, n_wrong = _tables(options.share)
    if options.write is None:
        print(text)
    else:
        page = options.write.read_text()
        start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
        options.write.write_text(f"{page[:start]}\n{text}\n{page[end:]}")
    if n_wrong:
        sys.exit(f"{n_wrong} files are read incorrectly.")


def _without_extras(folder: Path) -> dict[str, str]:
    """Why files cannot be read without extras, by name."""
    for module in EXTRAS:
        sys.modules[module] = None  # type: ignore[assignment]
    from imatlas.errors import DecodeError
    from imatlas.images.decode import read_picture

    found = {}
    for path in sorted(folder.iterdir()):
        try:
            read_picture(path.read_bytes(), name=path.name)
        except DecodeError as error:
            found[path.stem] = str(error)
    return found


def _groups(share: float) -> Iterator[tuple[str, str, Any]]:
    """(table, row, case) of every file."""
    from tests.images.formats.tiffs import cases
    from tests.images.formats.written import written

    for case in written():
        words = case.name.split(", ")
        n_words = 3 if words[0] == "PNG" and words[1].startswith("color") else 2
        yield PICTURES, ", ".join(words[:n_words]) + ", clear value" * ("clear value" in words), case
    for case in cases(share=share):
        dtype, bits, *middle = case.name.split(", ")
        n_words = next(i for i, word in enumerate(middle) if word.startswith("predictor")) - 1
        yield SAMPLES, ", ".join(middle[:n_words]), case
        yield DEPTHS, dtype if bits == "None" else f"{bits} bits", case
        yield PACKINGS, case.packing or "none", case


def _tables(share: float) -> tuple[str, int]:
    import tempfile

    from imatlas.images.decode import read_picture
    from tests.images.formats.tiffs import difference

    rows: dict[tuple[str, str], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (table, row, case) in enumerate(_groups(share)):
            about = rows.setdefault((table, row), {"n": 0, "wrong": 0, "as": set(), "notes": set(), "needs": set()})
            name = NAMES.get(case.name.partition(",")[0], "")
            fault = difference(case, name=name)
            about["n"] += 1
            about["wrong"] += bool(fault)
            if not fault:
                picture = read_picture(case.data, name=name)
                dtypes_only = table in (DEPTHS, PACKINGS)
                about["as"].add(picture.kind.dtype if dtypes_only else _kind_in_words(picture.kind))
                about["notes"].update([] if table == PACKINGS else picture.notes)
            about.setdefault("files", []).append(number)
            Path(folder, f"{number:06d}{name[1:]}").write_bytes(case.data)
        done = subprocess.run(
            [sys.executable, __file__, "--folder", folder], check=True, capture_output=True, text=True
        )
    missing = {int(name): reason for name, reason in json.loads(done.stdout).items()}
    for about in rows.values():
        lost = [missing[number] for number in about["files"] if number in missing]
        about["needs"] = {extra for extra in EXTRAS.values() if any(f"imatlas[{extra}]" in reason for reason in lost)}
        about["lost"] = len(lost)
    return _in_words(rows), sum(about["wrong"] for about in rows.values())


def _kind_in_words(kind: Any) -> str:
    colors = {1: "gray", 3: "RGB"}.get(kind.colors, f"{kind.channels} channels")
    return f"{colors}{' with alpha' if kind.alpha else ''}, {kind.dtype}"


def _in_words(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    lines: list[str] = []
    last = None
    formats = list(dict.fromkeys(row.partition(",")[0] for table, row in rows if table == PICTURES))

    def order(item: tuple[tuple[str, str], dict[str, Any]]) -> tuple[int, int]:
        table, row = item[0]
        return (TABLES.index(table), formats.index(row.partition(",")[0]) if table == PICTURES else 0)

    for (table, row), about in sorted(rows.items(), key=order):
        if table != last:
            lines += ["", f"## {table}", ""]
            lines += ["| file | files tested | read as | notes | extra |", "| --- | --- | --- | --- | --- |"]
            last = table
        wrong = f", {about['wrong']} wrong" if about["wrong"] else ""
        partly = "" if about["lost"] in (0, about["n"]) else f", {about['lost']} of {about['n']}"
        needs = f"{', '.join(sorted(about['needs']))}{partly}" if about["needs"] else ""
        cells = [row, f"{about['n']}{wrong}", "; ".join(sorted(about["as"])), "; ".join(sorted(about["notes"])), needs]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
