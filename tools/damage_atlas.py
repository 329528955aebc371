"""Damage an atlas in many seeded ways and count the results of its commands.

    python tools/damage_atlas.py                    # 2,000 damages to a tiny atlas
    python tools/damage_atlas.py -n 200 --seed 7    # fewer, with another seed
    python tools/damage_atlas.py --only 1234        # one damage, with its full output

Plain damage (bytes flipped, files truncated, extended, deleted, swapped, replaced by folders, pipes and links, JSON
values changed) must end in the same result as before or in one clear error line. If checksums are recomputed after a
change of values, the result may differ (another note is another note), but nothing may crash, hang, or end in an
unexpected error. Every damage runs in a process of its own, forked after all imports, with limits on memory and time.

`SUBJECTS` lists what can be damaged: to add saved models, add a function that writes them and their commands.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process cannot wait for threads of its parent

import numpy as np

MAX_BYTES = 4 * 2**30
"""Memory that a command may allocate beyond that of the imports."""

MAX_SECONDS = 120.0
"""Timeout in seconds, generous for busy machines."""

VALUES = 0.1
"""The fraction of damages that change values of a table, with all checksums recomputed."""

RARE = 0.1
"""The fraction of damages after which slow commands run too."""


class ExpectedError(Exception):
    """A command ended with an error line."""


Verb = Callable[[Path], None]
"""Runs in a folder that contains the subject, writes its output below `out/`; prints, or raises `ExpectedError`."""


@dataclass
class Subject:
    """What is damaged: how it is created, and the commands to run on it."""

    name: str
    make: Callable[[Path], None]
    verbs: dict[str, Verb]
    slow: frozenset[str] = frozenset()
    sealed: Callable[[Path, Path], None] | None = None  # recomputes the checksums of a changed file
    damage: Callable[..., tuple[str, bool]] | None = None  # instead of `damaged`
    values: Callable[[Path, np.random.Generator], None] | None = (
        None  # changes values of a table and recomputes its checksums
    )


@dataclass
class Outcome:
    """The results of the commands after one damage: name -> (kind, text)."""

    number: int
    damage: str
    forged: bool
    answers: dict[str, tuple[str, str]] = field(default_factory=dict)


def command(*arguments: str) -> Verb:
    """A command of the command line."""

    def run(folder: Path) -> None:
        from imatlas.cli import main

        code = main(list(arguments))
        if code:
            raise ExpectedError(str(code))

    return run


def make_pictures(folder: Path, n: int = 24) -> Path:
    """Color pictures (20 x 20) from two photographs of scikit-image, and a damaged file."""
    from PIL import Image
    from skimage import data

    folder.mkdir(parents=True)
    rng, whole = np.random.default_rng(0), (data.chelsea(), data.coffee())
    for i in range(n):
        top, left = rng.integers(0, 200, 2)
        Image.fromarray(whole[i % 2][top : top + 90, left : left + 90]).resize((20, 20)).save(folder / f"{i:02d}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    return folder


def learn(folder: Path) -> None:
    """The command that created the atlas, again: it repairs what it can."""
    source = str(folder.parent.parent / "photos")
    command("learn", source, "-o", "it", "--budget", "1s", "--encoder", "own", "--image-size", "16")(folder)


def make_atlas(folder: Path) -> None:
    """A tiny atlas with its source at `../../photos`."""
    make_pictures(folder.parent.parent / "photos")
    learn(folder)
    for checkpoint in folder.glob("cache/checkpoint*"):
        shutil.rmtree(checkpoint)


def seal_atlas(folder: Path, changed: Path) -> None:
    """Recompute the checksums of an atlas after a file was changed."""
    from imatlas.system.inventory import entry_of, seal

    path = folder / "atlas.json"
    values = json.loads(path.read_text())
    if not isinstance(values, dict):
        return
    values.pop("digest", None)
    name = changed.relative_to(folder).as_posix()
    if isinstance(values.get("files"), dict) and name in values["files"]:
        values["files"][name] = list(entry_of(changed))
    path.write_text(json.dumps({**values, "digest": seal(values)}))


def change_table(folder: Path, rng: np.random.Generator) -> None:
    """Put an invalid value into some or all rows of one column of the images table."""
    import pyarrow as pa

    from imatlas.atlas.manifest import Manifest
    from imatlas.atlas.table import ImagesTable

    manifest = Manifest.read(folder)
    named = manifest.table
    table = ImagesTable(folder / named["name"], named["version"], manifest.inventory(folder))
    column = str(rng.choice(table.columns))
    kind = table._data.schema.field(column).type
    values = table.take(range(len(table)), [column])[column].to_pylist()
    nasty: list[Any] = [None]
    if pa.types.is_fixed_size_list(kind):
        nasty += [[number] * kind.list_size for number in (float("nan"), float("-inf"), 3e38, 1e16, 1e-30, None)]
    elif pa.types.is_floating(kind):
        nasty += [float("nan"), float("inf"), -1.0, 1e30, 2.0]
    elif pa.types.is_integer(kind):
        nasty += [-1, -(2**31), 2**31 - 1, 10**6, 3]
    elif pa.types.is_boolean(kind):
        nasty += [True, False]
    elif pa.types.is_binary(kind):
        nasty += [b"", b"\x89PNG", b"x" * 3_000_000]
    else:
        nasty += ["", values[-1], "../../etc/passwd", "=1+1", "\x1b[31m", "x" * 2**21, "f" * 64]
    new = nasty[int(rng.integers(len(nasty)))]
    n = len(values) if rng.random() < 0.3 else int(rng.integers(1, 3))
    changed = table.set(**{column: pa.array([new] * n + values[n:], kind)})
    named["version"] = changed.version
    manifest.commit(folder)


ATLAS = Subject(
    "atlas",
    make_atlas,
    {
        "info": command("info", "it", "--json"),
        "table": command("table", "it", "-o", "out/table.csv"),
        "search": command("search", "it", "03.png", "-k", "5", "--json"),
        "search by file": command("search", "it", "../photos/04.png", "-o", "out/found.png"),
        "clusters": command("clusters", "it", "--json"),
        "outliers": command("outliers", "it", "--json"),
        "duplicates": command("duplicates", "it", "-o", "out/plan.csv"),
        "explain": command("explain", "it", "--cluster", "0", "--json"),
        "sample": command("sample", "it", "-n", "2", "-o", "out/new.png"),
        "numpy": command("export", "it", "--to", "numpy", "-o", "out/it.npz"),
        "embedding-atlas": command("export", "it", "--to", "embedding-atlas", "-o", "out/it.parquet"),
        "map": command("map", "it", "-o", "out/map.png", "--width", "200"),
        "morph": command("morph", "it", "01.png", "02.png", "--frames", "3", "-o", "out/morph.gif"),
        "score": command("score", "it", "--json"),
        "report": command("report", "it", "-o", "out/report.html"),
        "learn": learn,
    },
    frozenset({"map", "morph", "score", "report", "learn", "explain", "embedding-atlas"}),
    seal_atlas,
    values=change_table,
)

SUBJECTS = {"atlas": ATLAS}


def damaged(folder: Path, rng: np.random.Generator, seal: Callable[[Path, Path], None] | None) -> tuple[str, bool]:
    """Damage a folder once; returns a description, and whether checksums were recomputed."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and "cache" not in p.relative_to(folder).parts[:1])
    if rng.random() < 0.05:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
    path = files[rng.integers(len(files))]
    name = path.relative_to(folder).as_posix()
    kind = rng.choice(
        ["flip", "flip", "flip", "cut", "longer", "gone", "swap", "other", "json", "json", "forge", "forge"]
    )
    if kind == "flip":
        content = bytearray(path.read_bytes())
        for at in rng.integers(0, max(1, len(content)), rng.integers(1, 9)):
            if content:
                content[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
    elif kind == "cut":
        os.truncate(path, int(rng.integers(path.stat().st_size + 1)))
    elif kind == "longer":
        with path.open("ab") as file:
            file.write(rng.bytes(int(rng.integers(1, 100_000))))
    elif kind == "gone":
        path.unlink()
    elif kind == "swap":
        other = files[rng.integers(len(files))]
        name += f" with {other.relative_to(folder).as_posix()}"
        content = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif kind == "other":
        name += f" by {_replaced(path, rng)}"
    else:
        jsons = [p for p in files if p.suffix == ".json"]
        most, whole = folder / "atlas.json", rng.random() < 0.6
        path = most if whole and most.exists() else jsons[rng.integers(len(jsons))]
        changes = _changed_values(path, rng)
        if kind == "forge" and seal is not None:
            seal(folder, path)
        name = f"{path.relative_to(folder).as_posix()}: {changes}"
    return f"{kind} {name}".encode("utf-8", "backslashreplace").decode(), kind == "forge"


def _replaced(path: Path, rng: np.random.Generator) -> str:
    """Replace a file by something that is not a file."""
    what = str(rng.choice(["folder", "pipe", "link", "link to nothing", "link to endless zeros", "socket"]))
    content = path.read_bytes()
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        moved = path.parent.parent / f"moved-{path.name}"
        moved.write_bytes(content)
        path.symlink_to(moved)
    elif what == "link to nothing":
        path.symlink_to("nothing")
    elif what == "link to endless zeros":
        path.symlink_to("/dev/zero")
    else:
        os.mknod(path, 0o140644)
    return what


def _changed_values(path: Path, rng: np.random.Generator) -> str:
    """Change one to three values of a JSON file."""
    values = json.loads(path.read_text())
    changes = []
    for _ in range(int(rng.integers(1, 4))):
        parent, key, at = None, None, values
        where: list[str] = []
        while isinstance(at, dict | list) and at and (parent is None or rng.random() < 0.8):
            keys = sorted(at) if isinstance(at, dict) else range(len(at))
            parent, key = at, keys[int(rng.integers(len(keys)))]
            where.append(str(key))
            at = parent[key]
        if parent is None:
            break
        deed = rng.random()
        if deed < 0.15:
            del parent[key]
            changes.append(f"-{'.'.join(where)}")
            continue
        if deed < 0.25 and isinstance(parent, dict):
            key = str(rng.choice(["more", "__class__", "../x", ""]))
        new = _nasty(parent.get(key, at) if isinstance(parent, dict) else at, rng)
        parent[key] = new
        changes.append(f"{'.'.join(where)} = {str(new)[:40]}")
    path.write_text(json.dumps(values))
    return "; ".join(changes)


def _nasty(old: Any, rng: np.random.Generator) -> Any:
    """A replacement for a value."""
    deep: list[Any] = []
    for _ in range(30 if rng.random() < 0.5 else 900):
        deep = [deep]
    number = old if isinstance(old, int | float) else 1
    choices = [
        *[
            None,
            True,
            False,
            0,
            -1,
            1,
            2,
            3,
            255,
            4096,
            20_000,
            400_000,
            2**31,
            2**63,
            10**30,
            0.5,
            -0.5,
            1e-300,
            1e308,
        ],
        *[float("nan"), float("inf"), "", "x", "../x", "/etc/passwd", "\0", "\ud800", "=1+1", "[/b]", "x" * 50_000],
        *[[], {}, [1, 2], {"a": 1}, deep, [0] * 5000, number * 2, number + 1, -number, number / 3, str(old), [old]],
    ]
    return choices[int(rng.integers(len(choices)))]


def answer_of(verb: Verb, folder: Path) -> tuple[str, str]:
    """("answer", a hash of its output), ("error", the line) or ("unexpected", the output) of a command."""
    shutil.rmtree("out", ignore_errors=True)
    Path("out").mkdir()
    sys.stdout.flush()
    sys.stderr.flush()
    streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - closed with the process
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream.fileno(), number)
    kind, text = "answer", ""
    try:
        verb(folder)
    except ExpectedError:
        kind = "error"
    except BaseException:
        kind, text = "unexpected", traceback.format_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    texts = []
    for stream in streams:
        stream.seek(0)
        texts.append(stream.read().decode("utf-8", "replace"))
    if kind == "error":
        lines = [line for line in texts[1].splitlines() if line.startswith("Error: ")]
        clear = len(lines) == 1 and texts[1].splitlines()[-1] == lines[0]
        bad = ("Traceback", "unexpected error", "panicked")
        if not clear or any(word in texts[1] for word in bad):
            return "unexpected", texts[1][-3000:]
        return "error", lines[0]
    if kind == "unexpected":
        return kind, text
    digest = hashlib.sha256(texts[0].encode())
    for path in sorted(Path("out").rglob("*")):
        digest.update(path.name.encode() + (path.read_bytes() if path.is_file() else b""))
    return "answer", digest.hexdigest()


def run_all(subject: Subject, folder: Path, verbs: list[str], report: Path) -> None:
    """Run commands in this process and write each result at once, as the process may not survive the next one."""
    with report.open("w") as file:
        for name in verbs:
            file.write(json.dumps([name, "started", ""]) + "\n")
            file.flush()
            kind, text = answer_of(subject.verbs[name], folder)
            file.write(json.dumps([name, kind, text]) + "\n")
            file.flush()


def fork(work: Callable[[], None]) -> int:
    """Run some work in a process of its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        limit = _virtual_bytes() + MAX_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def _virtual_bytes() -> int:
    text = Path("/proc/self/statm").read_text() if Path("/proc/self/statm").exists() else "0"
    return int(text.split()[0]) * resource.getpagesize()


def wait(processes: dict[int, tuple[float, Any]]) -> tuple[Any, str]:
    """Wait for the first of some processes, process -> (start, payload); returns the payload and how it ended."""
    while True:
        for process, (began, what) in list(processes.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            late = time.monotonic() - began > MAX_SECONDS
            if not done and late:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            if done or late:
                del processes[process]
                end = "hang" if not done else "" if status == 0 else f"crash (status {status})"
                return what, end
        time.sleep(0.005)


def read_report(path: Path, end: str) -> dict[str, tuple[str, str]]:
    """The results that a process wrote; the command in which it ended gets its end."""
    answers: dict[str, tuple[str, str]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        name, kind, text = json.loads(line)
        answers[name] = (end.partition(" ")[0] or "crash", end) if kind == "started" else (kind, text)
    if end and not answers:
        answers["start"] = ("crash", end)
    return answers


def sweep(
    subject: Subject, numbers: list[int], *, seed: int = 0, workers: int = 2, work: Path, verbs: list[str] | None = None
) -> tuple[list[Outcome], list[str]]:
    """Do the damages with these numbers; returns their outcomes, and the commands that were run.

    Parameters
    ----------
    subject : Subject
    numbers : list of int
        Each number and the seed determine one damage.
    seed : int
    workers : int
        Number of parallel processes.
    work : path
        A folder to work in.
    verbs : list of str, optional
        Run only these, after every damage.
    """
    whole = work / "whole" / "it"
    whole.parent.mkdir(parents=True)
    plain = _answers_undamaged(subject, verbs or list(subject.verbs), whole, work)
    asked = list(plain)
    outcomes: list[Outcome] = []
    running: dict[int, tuple[float, Any]] = {}
    waiting = list(numbers)
    while waiting or running:
        while waiting and len(running) < workers:
            number = waiting.pop(0)
            rng = np.random.default_rng([seed, number])
            folder = work / f"{number}" / "it"
            shutil.copytree(whole, folder)
            own = np.random.default_rng([seed, number, 1])
            change = subject.values if own.random() < VALUES else None
            if change is None:
                deed, forged = (subject.damage or damaged)(folder, rng, subject.sealed)
            else:  # by the process itself, as Lance has threads, which do not survive a fork
                deed, forged = "values of the table", True
            names = asked if verbs or rng.random() < RARE else [n for n in asked if n not in subject.slow]
            report = work / f"{number}.jsonl"
            process = fork(partial(_ask, subject, folder, names, report, change, own))
            running[process] = (time.monotonic(), (Outcome(number, deed, forged), folder.parent, report))
        (outcome, folder, report), end = wait(running)
        for name, (kind, text) in read_report(report, end).items():
            same = kind == "answer" and (name == "learn" or text == plain[name])
            outcome.answers[name] = ("same", "") if same else ("other" if kind == "answer" else kind, text)
        outcomes.append(outcome)
        for _, name, kind, text in faults([outcome]):
            print(f"  {outcome.number} {outcome.damage[:200]!r}: {name}: {kind}: {text.strip()[-400:]}", flush=True)
        if len(outcomes) % 100 == 0:
            print(f"{len(outcomes):,} of {len(numbers):,} done, {len(faults(outcomes))} faults", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    return outcomes, asked


def _ask(
    subject: Subject,
    folder: Path,
    names: list[str],
    report: Path,
    change: Callable[[Path, np.random.Generator], None] | None,
    rng: np.random.Generator,
) -> None:
    """In a process of its own: change values if requested, and run the commands."""
    os.chdir(folder.parent)
    if change is not None:
        change(folder, rng)
    run_all(subject, folder, names, report)


def _answers_undamaged(subject: Subject, verbs: list[str], whole: Path, work: Path) -> dict[str, str]:
    """Create the subject and run the commands twice; those with different results are left out."""
    found: list[dict[str, tuple[str, str]]] = []
    for turn in range(2):
        report, folder = work / f"whole-{turn}.jsonl", work / f"copy-{turn}" / "it"

        def ask(turn: int = turn, report: Path = report, folder: Path = folder) -> None:
            os.chdir(whole.parent)
            if not turn:
                subject.make(whole)
            shutil.copytree(whole, folder)
            os.chdir(folder.parent)
            run_all(subject, folder, verbs, report)

        _, end = wait({fork(ask): (time.monotonic(), None)})
        found.append(read_report(report, end))
        shutil.rmtree(folder.parent, ignore_errors=True)
    first, second = found
    wrong = {name: answer for name, answer in first.items() if answer[0] != "answer"}
    if wrong or not first:
        raise SystemExit(f"Commands on the undamaged {subject.name} fail: {wrong}")
    return {n: a[1] for n, a in first.items() if n == "learn" or second.get(n) == a}


def faults(outcomes: list[Outcome]) -> list[tuple[Outcome, str, str, str]]:
    """Unacceptable results: (outcome, command, kind, text)."""
    return [
        (outcome, name, kind, text)
        for outcome in outcomes
        for name, (kind, text) in outcome.answers.items()
        if kind not in ("same", "error") and not (kind == "other" and outcome.forged)
    ]


def warm() -> None:
    """Import what the commands need without calling anything, as threads do not survive a fork."""
    import lance
    import matplotlib.pyplot
    import pyarrow.parquet
    import sklearn.cluster
    import torch
    import umap

    import imatlas.atlas.learn  # noqa: F401

    torch.set_num_threads(1)
    del lance, matplotlib, pyarrow, sklearn, umap


def main() -> int:
    """Run a sweep and print its counts; returns 1 if there were faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("subject", nargs="?", default="atlas", choices=list(SUBJECTS))
    parser.add_argument("-n", type=int, default=2000, help="number of damages [default: 2000]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="run only the fast commands")
    parser.add_argument("--only", type=int, help="only the damage with this number, with its full output")
    arguments = parser.parse_args()
    subject = SUBJECTS[arguments.subject]
    verbs = list(subject.verbs) if arguments.only is not None else None
    if arguments.quick:
        verbs = [name for name in subject.verbs if name not in subject.slow]
    warm()
    numbers = list(range(arguments.n)) if arguments.only is None else [arguments.only]
    with tempfile.TemporaryDirectory(prefix="damage-") as work:
        outcomes, asked = sweep(
            subject,
            numbers,
            seed=arguments.seed,
            workers=arguments.workers,
            work=Path(work),
            verbs=verbs,
        )
    print(f"{len(outcomes):,} damages to one {subject.name}, seed {arguments.seed}; commands: {', '.join(asked)}")
    for forged, title in ((False, "damage"), (True, "forged, with recomputed checksums")):
        some = [outcome for outcome in outcomes if outcome.forged == forged]
        counts = Counter(kind for outcome in some for kind, _ in outcome.answers.values())
        kinds = ("same", "error", "other", "unexpected", "crash", "hang")
        text = ", ".join(f"{counts[kind]:,} {kind}" for kind in kinds)
        print(f"{len(some):,} {title}: {sum(counts.values()):,} results: {text}")
    for outcome in outcomes if arguments.only is not None else ():
        print(outcome.number, outcome.damage, *(f"\n  {n}: {k} {s}" for n, (k, s) in outcome.answers.items()))
    found = faults(outcomes)
    print(json.dumps(Counter(kind for outcome in outcomes for kind, _ in outcome.answers.values())))
    print(f"{len(found):,} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
