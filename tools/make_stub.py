"""Write `src/imatlas/__init__.pyi`: the public names for editors and type checkers, from the tables in the package.

    python tools/make_stub.py

`import imatlas` resolves its names on first use, which editors cannot follow; the stub says where each one lives.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import imatlas

STUB = Path(__file__).resolve().parents[1] / "src" / "imatlas" / "__init__.pyi"


def stub() -> str:
    """The text of the stub, laid out as the formatter would."""
    modules: dict[str, list[str]] = defaultdict(list)
    for name, module in imatlas._NAMES.items():
        modules[module].append(name)
    imports = [
        f"from {module} import {name} as {name}" for module in sorted(modules) for name in sorted(modules[module])
    ]
    return "\n".join(
        [
            "# Made by tools/make_stub.py; run it again after a change.",
            *imports,
            "",
            "__version__: str",
            "__all__ = [  # noqa: RUF022 - in the order of the package",
            *(f'    "{name}",' for name in imatlas.__all__),
            "]",
            "",
        ]
    )


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
    print(f"{STUB}: {len(imatlas.__all__)} names")
