"""How far it is from a command to what it is about: functions and files of imatlas that a reader goes through.

    python tools/ways.py

Each way is run for real on a few small images, and the stack is looked at where the goal is reached for the first time
(where the way is the longest, if a shorter one comes later). Counted are the functions of imatlas from the command to
the one that holds the formula, and the files that they lie in.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

Stack = list[tuple[str, str]]
"""(file, function) of each frame inside imatlas, the command first."""


started = threading.local()
"""In a thread of a pool: the stack that gave it its task."""


class Pool(ThreadPoolExecutor):
    """A pool whose threads know who gave them their task."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        above = stack()

        def run() -> Any:
            started.above = above
            return function(*args, **kwargs)

        return super().submit(run)


def stack() -> Stack:
    """Where the program is now, through threads."""
    found = []
    for frame in traceback.extract_stack():
        if "/imatlas/" in frame.filename and frame.name not in ("checked", "<lambda>"):  # `checked` wraps the arguments
            found.append((frame.filename.rpartition("/imatlas/")[2], frame.name))
    start = max((i + 1 for i, (file, name) in enumerate(found) if file == "cli/program.py"), default=0)
    return [*getattr(started, "above", []), *found[start:]]


@contextmanager
def watched(owner: Any, name: str) -> Iterator[list[Stack]]:
    """The stacks of the calls of a function, wherever imatlas has imported it."""
    original, seen = getattr(owner, name), []

    def function(*args: Any, **kwargs: Any) -> Any:
        if len(seen) < 50:
            seen.append(stack())
        return original(*args, **kwargs)

    places = [owner, *(m for key, m in list(sys.modules.items()) if key.startswith("imatlas") and m is not owner)]
    changed = [place for place in places if vars(place).get(name) is original or place is owner]
    for place in changed:
        setattr(place, name, function)
    try:
        yield seen
    finally:
        for place in changed:
            setattr(place, name, original)


def command(*arguments: object) -> Callable[[], None]:
    """A call of the command line."""

    def run() -> None:
        from imatlas.cli.program import call

        code = call([str(a) for a in arguments])
        assert code == 0, arguments

    return run


def main() -> None:
    import torch

    from imatlas.cli.program import call  # noqa: F401 - all commands are there before anything is watched
    from imatlas.images import intake
    from imatlas.images.dataset import Images
    from imatlas.models import autoencoder, gan, vae  # noqa: F401
    from imatlas.nn import losses

    intake.ThreadPoolExecutor = Pool  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "images").mkdir()
        rng = np.random.default_rng(0)
        for i in range(24):
            ramp = np.linspace(0, 255, 32)[:, None, None] * rng.random((1, 32, 3))
            Image.fromarray(ramp.astype(np.uint8)).save(root / "images" / f"{i:02}.png")
        source, atlas = root / "images", root / "images.atlas"
        learn = command("learn", source, "-o", atlas, "--budget", "5s", "--encoder", "own")
        ways = [
            ("`fit vae` to the KL divergence", losses, "gaussian_kl",
             command("fit", "vae", source, "-o", root / "vae", "--max-steps", "2", "--size", "small")),
            ("`learn` to the loss of its autoencoder", losses, "masked_mean", learn),
            ("a file to its pixels", ImageFile.ImageFile, "load", lambda: Images(source)[0]),
            ("`sample` to the decoder", torch.nn.ConvTranspose2d, "forward",
             command("sample", atlas, "-o", root / "new", "-n", "2")),
            ("`search` with an image of its own to the network", torch.nn.Conv2d, "forward",
             command("search", atlas, source / "03.png", "-k", "2")),
        ]  # fmt: skip
        print("| way | functions | files |\n|---|---|---|")
        for title, owner, name, run in ways:
            with watched(owner, name) as seen:
                run()
            assert seen, title
            way = seen[0]
            print(f"| {title} | {len(way)} | {len({file for file, _ in way})} |")
            if "--show" in sys.argv:
                for file, function in way:
                    print(f"    {file}: {function}", file=sys.stderr)


if __name__ == "__main__":
    main()
