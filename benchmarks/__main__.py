"""Run a benchmark, print its table and save it under benchmarks/results/: `python -m benchmarks NAME [options]`."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from pathlib import Path

NAMES = sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if not m.name.startswith("_"))


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print("usage: python -m benchmarks NAME [options]\n\nNAME --help explains its options.\n")
        for name in NAMES:
            print(f"  {name:<24}{_title(name)}")
        return 0 if sys.argv[1:] in (["--help"], ["-h"]) else 2
    importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
    return 0


def _title(name: str) -> str:
    """The first line of a benchmark's docstring, up to the command in it."""
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0].partition(": `")[0].rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
