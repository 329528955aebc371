"""Size on disk of packages and of all that they need, as a JSON line: `studio_size.py PACKAGE... [-- BASE...]`.

`total_mb` is of all, `extra_mb` of what the packages after `--` do not need themselves.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement


def needed(names):
    """Distributions that packages need, by their normal name."""
    found, waiting = {}, [(Requirement(name), "") for name in names]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = requirement.name.lower().replace("_", "-").replace(".", "-")
        for wanted in requirement.extras or {""}:
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            try:
                found[name] = importlib.metadata.distribution(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                continue
            waiting += [(Requirement(line), wanted) for line in found[name].requires or []]
    return found


def megabytes(distribution):
    """Size of its files; of a package that is installed from a checkout, of its source."""
    files = [Path(distribution.locate_file(file)) for file in distribution.files or []]
    if any(file.suffix == ".pth" for file in files) and distribution.name == "imatlas":
        import imatlas

        files += [file for file in Path(imatlas.__file__).parent.rglob("*") if "__pycache__" not in file.parts]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


words = sys.argv[1:]
at = words.index("--")
found, base = needed(words[:at]), needed(words[at + 1 :])
sizes = {name: megabytes(distribution) for name, distribution in found.items()}
extra = {name: size for name, size in sizes.items() if name not in base}
version = importlib.metadata.version(Requirement(words[0]).name)
print(
    json.dumps(
        {"version": version, "total_mb": sum(sizes.values()), "extra_mb": sum(extra.values()), "n_extra": len(extra)}
    )
)
