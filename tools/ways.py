"""Count the functions and files of imatlas between a command and its goal.

    python tools/ways.py

Each command runs on a few small images, and the stack is recorded when the goal is first reached. Counted are the
functions of imatlas from the command to the goal, and the files that contain them.
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
"""In a pool thread: the stack that submitted its task."""


class Pool(ThreadPoolExecutor):
    """A pool whose threads know the stack that submitted their task."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        above = stack()

        def run() -> Any:
            started.above = above
            return function(*args, **kwargs)

        return super().submit(run)


def stack() -> Stack:
    """The current stack inside imatlas, across threads."""
    found = []
    for frame in traceback.extract_stack():
        if "/imatlas/" in frame.filename and frame.name not in ("checked", "<lambda>"):  # `checked` wraps the arguments
            found.append((frame.filename.rpartition("/imatlas/")[2], frame.name))
    start = max((i + 1 for i, (file, name) in enumerate(found) if file == "cli/program.py"), default=0)
    return [*getattr(started, "above", []), *found[start:]]


@contextmanager
def watched(owner: Any, name: str) -> Iterator[list[Stack]]:
    """The stacks of the calls of a function, wherever imatlas has imported it."""
    original, stacks = getattr(owner, name), []

    def function(*args: Any, **kwargs: Any) -> Any:
        if len(stacks) < 50:
            stacks.append(stack())
        return original(*args, **kwargs)

    places = [owner, *(m for key, m in list(sys.modules.items()) if key.startswith("imatlas") and m is not owner)]
    changed = [place for place in places if vars(place).get(name) is original or place is owner]
    for place in changed:
        setattr(place, name, function)
    try:
        yield stacks
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

    from imatlas.cli.program import call  # noqa: F401 - imports all commands before anything is patched
    from imatlas.images import intake
    from imatlas.images.dataset import Images
    from imatlas.models import autoencoder, gan, vae  # noqa: F401
    from imatlas.models.parts import patch_sampler
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
            ("`sample` to the generator's flow", patch_sampler.Sampler, "__call__",
             command("sample", atlas, "-o", root / "new", "-n", "2")),
            ("`search` with a new image to the network", torch.nn.Conv2d, "forward",
             command("search", atlas, source / "03.png", "-k", "2")),
        ]  # fmt: skip
        print("| way | functions | files |\n|---|---|---|")
        for title, owner, name, run in ways:
            with watched(owner, name) as stacks:
                run()
            assert stacks, title
            way = stacks[0]
            print(f"| {title} | {len(way)} | {len({file for file, _ in way})} |")
            if "--show" in sys.argv:
                for file, function in way:
                    print(f"    {file}: {function}", file=sys.stderr)


if __name__ == "__main__":
    main()
