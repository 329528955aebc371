"""Read thousands of damaged image files, each in a process of its own, and count the results.

python tools/damage_images.py [--files 10000] [--seed 0] [--workers 2] [--keep FOLDER]

Every file is a tiny valid one with seeded damage, read in all ways that imatlas reads files: first frame, all frames,
thumbnail, header, and as part of a set. A reader may return a picture or a plain reason; anything else (a crash, more
than 5 seconds, more than 1 GB, another exception, terminal output) is a failure, and its file is kept.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.images.corrupt import damaged

SECONDS = 5.0
MEGABYTES = 1000
GOOD = ("used", "skipped", "partly used")
_BATCH = 50


class Outcome(NamedTuple):
    """The result of one file."""

    name: str
    what: str
    seconds: float
    megabytes: float
    text: str


def read_everyhow(name: str, content: bytes) -> str:
    """Read one file in every way; "used", "skipped", or what went wrong."""
    from imatlas.errors import DecodeError
    from imatlas.images import decode
    from imatlas.images.picture import Aim

    results = set()
    for frames in ("first", "all"):
        for aim in (None, Aim(32, 32, "crop", 40)):
            try:
                for picture in decode.read_frames(content, name=name, frames=frames, aim=aim):  # type: ignore[arg-type]
                    picture.fitted(32, 32, "pad", (255, 255, 255))
                    picture.thumbnail(64)
                    picture.gray()
                    picture.pixels()
                results.add("used")
            except DecodeError as error:
                if len(str(error)) < 5 or "\n" in str(error):
                    return f"no plain reason: {error!r}"
                results.add("skipped")
    for read in (decode.size_of, decode.check_thumbnail):
        with contextlib.suppress(DecodeError):
            read(content)
    return "used" if results == {"used"} else "skipped" if results == {"skipped"} else "partly used"


def read_as_set(files: list[tuple[str, bytes]]) -> str:
    """Read files as a set, by threads; "used", or what went wrong."""
    from imatlas.errors import InputError
    from imatlas.images.dataset import Images

    with tempfile.TemporaryDirectory() as folder:
        for name, content in files:
            (Path(folder) / name).write_bytes(content)
        images = Images(folder, thumbnail_size=40, frames="all")
        try:
            keys = {key.partition("#")[0] for key in [*images.keys, *(key for key, _ in images.skipped)]}
        except InputError:
            return "skipped"
        missing = {name for name, _ in files} - keys
        if missing and not any("other file" in key for key in keys):
            return f"neither used nor skipped: {sorted(missing)[:3]}"
        for row in range(min(10, len(images))):
            images[row]
            images.thumbnails[row]
    return "used"


def _child(read: Callable[[], str], out: int) -> None:
    """One reading in this forked process; writes the result to `out`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    _reset_peak()
    start = time.process_time()
    try:
        what = read()
    except BaseException as error:
        what = f"raised {type(error).__name__}: {str(error)[:150]!r}"
    os.write(out, f"{what}\n{time.process_time() - start}\n{_peak()}".encode())
    os._exit(0)


def _reset_peak() -> None:
    """Reset the peak memory inherited from the parent; Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """The peak memory of this process in megabytes."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1000
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def tried(name: str, read: Callable[[], str]) -> Outcome:
    """The result of reading in a forked process, which is killed if it hangs."""
    inside, out = os.pipe()
    errors_in, errors_out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(errors_out, 2)
        _child(read, out)
    os.close(out)
    os.close(errors_out)
    start = time.monotonic()
    status, killed = 0, False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - start > 90:
            os.kill(pid, signal.SIGKILL)
            killed = True
        time.sleep(0.002)
    answer = os.read(inside, 65536).decode(errors="replace").split("\n")
    words = os.read(errors_in, 65536).decode(errors="replace").strip()
    os.close(inside)
    os.close(errors_in)
    if killed or len(answer) < 3:
        sign = "hang" if killed else f"crash (signal {os.WTERMSIG(status)})"
        return Outcome(name, sign, time.monotonic() - start, 0.0, words)
    seconds, megabytes = float(answer[1]), float(answer[2])
    what = answer[0]
    if what in GOOD:
        if seconds > SECONDS:
            what = "slow"
        elif megabytes > MEGABYTES:
            what = "large"
        elif words:
            what = f"terminal output: {words[:100]}"
    return Outcome(name, what, seconds, megabytes, words)


def batch(files: list[tuple[str, bytes]], keep: Path | None) -> list[Outcome]:
    """The results of some files, in order; files that fail are kept."""
    found = []
    for name, content in files:
        outcome = tried(name, functools.partial(read_everyhow, name, content))
        found.append(outcome)
        if outcome.what not in GOOD:
            print(f"{name}: {outcome.what} ({outcome.seconds:.1f} s, {outcome.megabytes:.0f} MB)", flush=True)
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / name).write_bytes(content)
    whole = tried(f"the set {files[0][0]} ...", functools.partial(read_as_set, files))
    if whole.what not in (*GOOD, "slow"):  # many files take their time
        print(f"{whole.name}: {whole.what} ({whole.seconds:.1f} s, {whole.megabytes:.0f} MB)", flush=True)
        found.append(whole)
    return found


def report(outcomes: list[Outcome]) -> int:
    """Print the counts and the worst cases; returns the number of failures."""
    counts = collections.Counter(o.what for o in outcomes)
    for what, n in counts.most_common():
        print(f"{n:7,}  {what}")
    slowest = max(outcomes, key=lambda o: o.seconds)
    largest = max(outcomes, key=lambda o: o.megabytes)
    print(f"worst time   {slowest.seconds:.2f} s of CPU time ({slowest.name})")
    print(f"worst memory {largest.megabytes:.0f} MB ({largest.name})")
    return sum(n for what, n in counts.items() if what not in GOOD)


def main() -> None:
    """Damage, read, count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "damaged-images")
    options = parser.parse_args()
    import imatlas.images.dataset
    import imatlas.images.formats.tiff  # noqa: F401 - before the fork, so that no child imports it

    files = damaged(options.files, options.seed)
    parts = [files[i : i + _BATCH] for i in range(0, len(files), _BATCH)]
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(options.workers) as pool:
        for part in pool.map(lambda part: batch(part, options.keep), parts):
            outcomes += part
    failures = report(outcomes)
    print(f"{len(outcomes):,} files, {failures} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
