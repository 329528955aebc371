"""The one loop that trains every network.

A model defines what is learned: `_build(spec)` returns the module, `_optimizers(module)` its optimizers by name, and
`_losses(module, batch, generator)` yields `(optimizer name, loss, logs)`. The loop does the rest: batches, budget,
precision, averaged weights, rollback of non-finite losses, checkpoints, held-out loss, progress.

Runs are repeatable: the step counter never goes back; the randomness of step s comes from (seed, s); batches are cut
from an endless sequence of permutations, each drawn from (seed, epoch); and whatever the clock, the memory or other
programs decide is logged with its step in `State.decisions`. So the weights are a function of data, parameters and
decisions.

Under torchrun all processes run this loop in step (`system/processes.py`). Each computes the gradients of its part of
every batch, and all take the same step with their mean. So weights and counters are the same in each, and so is what
follows from them, as a rollback. What depends on a clock is decided by that of process 0.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from imatlas import seeding
from imatlas.errors import ArtifactError, ParameterError, TrainingError
from imatlas.system import processes, threads
from imatlas.training import checkpoints, devices, schedule
from imatlas.training.batches import Data, make_batch
from imatlas.training.checkpoints import Checkpoint, Decision, State, Weights
from imatlas.training.clock import Clock
from imatlas.training.preview import Preview, Show
from imatlas.training.progress import Callback, Interrupt, Progress, duration
from imatlas.training.steps import Learner, Steps

SNAPSHOT = 100
"""Steps between two snapshots in memory, to which a run returns after a non-finite loss."""

CHECKPOINT_SECONDS = 30.0
"""A snapshot is also written to disk if the last one there is older than this."""

WARM_UP = 24
"""Steps after which a run with a budget decides on precision and batch size."""

PROBE = range(12, 20)
"""Warm-up steps that run in bf16 where the hardware supports it, to compare its speed with fp32."""

MIN_SHARE = 0.1
"""Fraction of the budget that is left for a network however long the parts before it took."""

WATCH_SECONDS = 4.0
"""With a budget, how often a run measures whether other programs use the cores; a measurement takes 0.05 s."""

MAX_FAILURES = 6
"""Rollbacks without reaching the next snapshot, after which a run gives up."""

CLEAN = 5
"""Snapshots without a rollback after which a lowered rate is doubled again."""


class Run:
    """One training run: `Run(…).run()` trains until `max_steps` are done or the `budget` is used up.

    Parameters
    ----------
    learner : Learner
        The model: its training parameters, `_optimizers`, `_losses` and `_held_out_loss`.
    module : torch.nn.Module
        The untrained network, on the CPU.
    data : Data
        Training and held-out images.
    seed : int
    checkpoint : path or Checkpoint, optional
        A folder. The run resumes from a checkpoint of the same run there, and writes its own.
    identity : dict, optional
        What a checkpoint must have in common with this run: parameters and data fingerprint, as plain values.
    replay : list of dict, optional
        The decisions of an earlier run, which are then repeated; the clock is never read.
    callback : callable, optional
        Receives every event as a dict; `imatlas.training.progress.JsonLines` writes them to a file.
    preview : callable, optional
        Receives images that the network generates; see `imatlas.training.preview`.
    spent : float
        Seconds of the budget that are already used.
    """

    def __init__(
        self,
        learner: Learner,
        module: torch.nn.Module,
        data: Data,
        *,
        seed: int,
        checkpoint: str | Path | Checkpoint | None = None,
        identity: dict[str, Any] | None = None,
        replay: list[Decision] | None = None,
        callback: Callback | None = None,
        preview: Show | None = None,
        spent: float = 0.0,
    ) -> None:
        self.learner, self.data, self.seed, self.replay = learner, data, seed, replay
        self.checkpoint = Checkpoint.at(checkpoint)
        self.identity = json.loads(json.dumps(identity or {}))  # as it is read back from a file
        self.budget = schedule.parse_budget(learner.budget)
        if self.budget is not None:
            self.budget = max(MIN_SHARE * self.budget, self.budget - spent)
        first = processes.is_first()
        self.device = devices.pick_device(learner.device)
        module = devices.place(module, self.device).train()
        self.weights = Weights(module, learner._optimizers(module), learner._half_life)
        self.clock = Clock()
        self.interrupt = Interrupt()
        self.steps = Steps(learner, data, self.weights, self.device, self.clock, self.interrupt)
        self.state = self._initial_state()
        self.progress = Progress(
            type(learner).__name__, show=learner.progress and first, callback=callback if first else None
        )
        self.preview = None if preview is None or not first else Preview(preview)
        self.step_seconds: dict[int, float] = {}  # of the warm-up
        self.evaluation_seconds = 0.0
        self.max_threads = torch.get_num_threads()
        self._saved_at, self._watched_at = 0.0, -math.inf

    def _initial_state(self) -> State:
        learner, n_images = self.learner, len(self.data)
        size, n_processes = min(learner.batch_size, n_images), processes.count()
        if size < n_processes:
            raise ParameterError(
                f"A batch must have an image for each process. Got batches of {size} images and {n_processes} "
                "processes; set a larger batch_size, or start fewer processes."
            )
        max_steps = learner.max_steps
        if max_steps is None and self.budget is None:
            max_steps = schedule.default_steps(n_images, size)
        precision: devices.Precision | None = learner.precision
        if learner.precision == "auto":
            supported = devices.has_bf16(self.device)
            # None: measured during the warm-up. Without a budget nothing may depend on the clock.
            precision = ("bf16" if supported else "fp32") if self.budget is None or not supported else None
        decay_start = None if max_steps is None else int(schedule.DECAY_SHARE * max_steps)
        return State(batch_size=size, precision=precision, max_steps=max_steps, decay_start=decay_start)

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> tuple[torch.nn.Module, State]:
        """Train.

        Returns
        -------
        module : torch.nn.Module
            With the averaged weights.
        state : State
            The record of the run; `interrupted` if Ctrl-C ended it.

        Raises
        ------
        TrainingError
            If the loss stays non-finite, or not even one image fits into memory; or if another process has ended.
        ArtifactError
            If the checkpoint belongs to a run with other parameters or data, and is not disposable.
        KeyboardInterrupt
            On Ctrl-C with a checkpoint, once that is written. Without one, the run ends early and its weights are kept
            (`State.interrupted`). A second Ctrl-C stops at once.
        """
        self._start()
        try:
            with self.interrupt:
                while not self._finished():
                    if self._repeat_decision():
                        continue
                    self._watch_threads()
                    self._check_clock()
                    began = time.perf_counter()
                    try:
                        finite = self.steps.take(self.state, self.seed, self._precision())
                    except (RuntimeError, MemoryError) as error:
                        if not devices.is_out_of_memory(error):
                            raise
                        self._halve_batch(error)
                    else:
                        self._count_step(began) if finite else self._roll_back()
                    if self.steps.is_interrupted:
                        self._stop_early()
                        break
            self._finish()
            return self.weights.averaged(), self.state
        finally:
            torch.set_num_threads(self.max_threads)
            self.progress.close()

    def _start(self) -> None:
        """Resume or begin, with the weights, seed and state of process 0 in each process."""
        processes.from_first(self._resume)
        self.weights.snapshot()
        about = {name: value for name, value in self.identity.items() if name != "held out"}  # may be learned codes
        _check_alike(processes.gathered(about))
        self.seed, state = processes.shared((self.seed, asdict(self.state)))
        self.state = State(**state)
        if processes.count() > 1:
            self.weights.saved = processes.shared_tensors(self.weights.saved, self.device)
            self.weights.restore()
        if self.state.threads is not None:
            torch.set_num_threads(self.state.threads)
        self.clock.start(self.state.seconds)
        self._saved_at = self.state.seconds
        self._report_start()
        if self.state.processes != processes.count() and self.replay is None:
            numbers = self.state.processes, processes.count()
            before, now = ("1 process" if n == 1 else f"{n} processes" for n in numbers)
            resumed = f" The checkpoint was written in {before}." if self.state.step else ""
            self._decide("processes", f"Training in {now}.{resumed}", processes=processes.count())

    def _finished(self) -> bool:
        return self.state.max_steps is not None and self.state.step >= self.state.max_steps

    def _precision(self) -> devices.Precision:
        if self.state.precision is not None:
            return self.state.precision
        return "bf16" if self.state.step in PROBE else "fp32"

    def _count_step(self, began: float) -> None:
        """Count the step that succeeded; update the average, evaluate, and take snapshots when they are due."""
        state = self.state
        if state.step < WARM_UP:
            devices.synchronize(self.device)
            self.step_seconds[state.step] = time.perf_counter() - began
        state.images_seen += state.batch_size
        state.step += 1
        if state.step % checkpoints.EMA_EVERY == 0 or self._finished():
            self.weights.update_ema(state.step)
        state.seconds = self.clock.read()
        interval = schedule.evaluation_interval(state.max_steps or state.expected_steps)
        if state.step % interval == 0 or self._finished():
            self._evaluate()
            self._check_held_out_loss()
        if state.step % SNAPSHOT == 0:
            state.failures, state.clean = 0, state.clean + 1
            if state.rate < 1 and state.clean >= CLEAN:
                state.rate, state.clean = 2 * state.rate, 0
            self.weights.snapshot()
            if state.seconds - self._saved_at >= CHECKPOINT_SECONDS:
                self._save_checkpoint()
        self._report_progress()

    def _evaluate(self) -> None:
        """Held-out loss of the averaged weights, appended to the history; each process evaluates some batches."""
        began = time.monotonic()
        state, data = self.state, self.data
        total, n_images = 0.0, len(data.held_out)
        with torch.no_grad(), devices.autocast(self.device, self._precision()):
            for start in range(0, n_images, state.batch_size)[processes.rank() :: processes.count()]:
                generator = self.steps.generator.manual_seed(seeding.seed_of(self.seed, "held out", start))
                part = slice(start, start + state.batch_size)
                y = None if data.held_out_y is None else data.held_out_y[part]
                batch = make_batch(data.held_out[part], data.spec, self.device, y)
                total += float(self.learner._held_out_loss(self.weights.ema, batch, generator)) * len(batch.x)
        steps = self.steps
        total, seconds, *sums = processes.summed([total, self.clock.here(), *map(float, steps.sums.values())])
        losses: dict[str, Any] = {k: value / max(1, steps.n_sums) for k, value in zip(steps.sums, sums, strict=True)}
        losses["held_out"] = total / n_images if n_images else None
        steps.clear()
        self.evaluation_seconds = time.monotonic() - began
        self.clock.hear(seconds)
        state.seconds = self.clock.read()
        entry = {"step": state.step, "images_seen": state.images_seen, "seconds": round(state.seconds, 3), **losses}
        for name, value in entry.items():
            state.history.setdefault(name, []).append(value)
        self.progress.event("loss", **entry)
        if self.preview is not None:
            self.preview.look(self.learner, self.weights.ema, data, self.device, state)

    # -- decisions: logged by step, so that a replay gives the same weights ---------------------------------------

    def _decide(self, kind: str, message: str = "", **values: Any) -> None:
        """Log the decision of process 0 and act on it, in each process."""
        decision = processes.shared({"step": self.state.step, "decision": kind, **values})
        self.progress.event("decision", message, **decision)
        self._act(decision)

    def _repeat_decision(self) -> bool:
        """In a replay, act on the next decision if it was taken at this step."""
        n_done = len(self.state.decisions)
        if not self.replay or n_done >= len(self.replay) or self.replay[n_done]["step"] != self.state.step:
            return False
        self._act(self.replay[n_done])
        return True

    def _act(self, decision: Decision) -> None:
        state, kind = self.state, decision["decision"]
        state.decisions.append(decision)
        for name in set(decision) - {"step", "decision"}:
            setattr(state, name, decision[name])
        if kind == "threads":
            torch.set_num_threads(decision["threads"])
        elif kind == "snapshot":
            self.weights.snapshot()
        elif kind == "stop":
            self.weights.update_ema(state.step)
        elif kind in ("rollback", "out_of_memory"):
            self.weights.restore()
        if kind == "rollback":  # skip the batch that failed
            state.failures, state.clean = state.failures + 1, 0
            state.images_seen += state.batch_size
            state.step += 1

    def _watch_threads(self) -> None:
        """Leave cores to other programs: on a shared core oneDNN's threads spin, and a step takes ten times as long."""
        state = self.state
        if self.budget is None or self.replay is not None or self.device.type != "cpu" or self.max_threads < 2:
            return
        if processes.count() > 1:  # they would take each other for other programs
            return
        if 0 < state.step < WARM_UP or time.monotonic() < self._watched_at + WATCH_SECONDS:
            return
        now = state.threads or self.max_threads
        free = threads.free_threads(self.max_threads, now)
        self._watched_at = time.monotonic()
        if free != now:
            fewer = f"Other programs use this machine: training with {free} of {self.max_threads} threads for now."
            self._decide("threads", fewer if free < now and state.threads is None else "", threads=free)

    def _check_clock(self) -> None:
        """The only two decisions that depend on the time: after the warm-up, and late in the budget."""
        state, budget = self.state, self.budget
        if budget is None or self.replay is not None or state.step == 0:
            return
        taken = {decision["decision"] for decision in state.decisions}
        seconds = state.seconds = self.clock.read()
        if "warm_up" not in taken and (state.step >= WARM_UP or seconds > 0.1 * budget):
            self._choose_precision_and_batch(budget - seconds)
        if "schedule" not in taken and seconds >= schedule.DECAY_SHARE * budget:
            left = budget - seconds - self.evaluation_seconds - 0.01 * budget
            max_steps, decay_start = state.step + max(1, int(left * state.step / seconds)), state.step
            if state.max_steps is not None and state.max_steps <= max_steps:
                max_steps, decay_start = state.max_steps, state.decay_start or 0
            self._decide("schedule", max_steps=max_steps, decay_start=decay_start)

    def _check_held_out_loss(self) -> None:
        """Decay the learning rate now, and stop, if the model overfits."""
        state, learner = self.state, self.learner
        if not learner._stops_early or learner.max_steps is not None or self.replay is not None:
            return
        decays = state.decay_start is not None and state.step >= state.decay_start
        if decays or not schedule.overfits(state.history["held_out"]):
            return
        max_steps = round(state.step / schedule.DECAY_SHARE) + 1
        message = f"The held-out loss is getting worse; training ends at step {max_steps}."
        self._decide("schedule", message, max_steps=max_steps, decay_start=state.step)

    def _choose_precision_and_batch(self, seconds_left: float) -> None:
        state = self.state
        timed = {step: s for step, s in self.step_seconds.items() if step >= min(4, state.step - 1)}
        fp32 = [s for step, s in timed.items() if step not in PROBE]
        bf16 = [s for step, s in timed.items() if step in PROBE]
        precision, step_seconds = schedule.faster_precision(fp32, bf16 if state.precision is None else [])
        if len(bf16) < len(PROBE):  # too slow to be compared, where the hardware has both
            precision = "bf16"
        size, steps = schedule.batch_for_budget(state.batch_size, step_seconds, seconds_left)
        size = max(size, processes.count())
        smaller = f"Batches of {state.batch_size} images leave too few steps in the budget; continuing with {size}."
        self._decide(
            "warm_up",
            smaller if size < state.batch_size else "",
            precision=state.precision or precision,
            batch_size=size,
            expected_steps=steps,
        )

    def _roll_back(self) -> None:
        state = self.state
        if state.failures >= MAX_FAILURES:
            raise TrainingError(
                f"The loss was not finite {MAX_FAILURES + 1} times in a row up to step {state.step}, "
                f"each time at a lower rate; set a learning_rate below {self.learner.learning_rate * state.rate:.1g}, "
                "or look for extreme values in the images."
            )
        message = f"The loss was not finite at step {state.step}; continuing from the last snapshot at half the rate."
        self._decide("rollback", message, rate=state.rate / 2)

    def _halve_batch(self, error: BaseException) -> None:
        size = self.state.batch_size
        if size < 2 * processes.count():
            raise TrainingError("There is not enough memory for one image; use smaller images.") from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        message = f"There is not enough memory for batches of {size} images; continuing with {size // 2}."
        self._decide("out_of_memory", message, batch_size=size // 2)

    def _stop_early(self) -> None:
        step = self.state.step
        if self.checkpoint is None:
            self._decide("stop", f"Stopped at step {step}; what was learned so far is kept.", max_steps=step)
            return
        self._decide("snapshot")
        self._save_checkpoint()
        processes.gathered(None)  # torchrun ends all processes when the first one ends
        folder = self.checkpoint.folder
        self.progress.event("stop", f"Stopped at step {step}; the same call resumes from '{folder}'.")
        raise KeyboardInterrupt

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _save_checkpoint(self) -> None:
        if self.checkpoint is None or not processes.is_first():
            return
        folder = self.checkpoint.folder
        values = {"identity": self.identity, "seed": self.seed, "state": asdict(self.state)}
        try:
            checkpoints.write(folder, self.weights.saved, values)
        except (OSError, ArtifactError) as error:
            self.progress.event(
                "problem", f"The checkpoint could not be written ({error}); training continues without it."
            )
        else:
            self.progress.event("checkpoint", step=self.state.step, folder=str(folder))
        self._saved_at = self.clock.read()

    def _resume(self) -> None:
        """Resume from the checkpoint, if there is one; a disposable one that does not fit is dropped."""
        if self.checkpoint is None:
            return
        self.weights.snapshot()
        initial, folder = self.weights.saved, self.checkpoint.folder
        try:
            resumed = checkpoints.resume(self.checkpoint, self.weights, self.identity, self.state.batch_size)
        except (OSError, ArtifactError) as error:
            if not self.checkpoint.disposable:
                raise
            reason = str(error).partition(";")[0].rstrip(".")
            self.progress.event("problem", f"{reason}; {self.checkpoint.drop()}.")
            self.weights.saved = initial
            self.weights.restore()
            return
        if isinstance(resumed, str):
            message = f"The checkpoint in '{folder}' is damaged ({resumed}); training starts over."
            self.progress.event("problem", message)
        elif resumed is not None:
            self.seed, self.state = resumed
            step = self.state.step
            self.progress.event("resume", f"Resuming from step {step} of '{folder}'.", step=step)

    # -- reports -------------------------------------------------------------------------------------------------

    def _report_start(self) -> None:
        n_weights = sum(p.numel() for p in self.weights.live.parameters())
        self.progress.event(
            "start",
            f"Training on {len(self.data)} images with {n_weights / 1e6:.2f} M weights on {self.device}.",
            model=type(self.learner).__name__, n_images=len(self.data), n_held_out=len(self.data.held_out),
            n_weights=n_weights, device=str(self.device), threads=torch.get_num_threads(), budget=self.budget,
            max_steps=self.state.max_steps, batch_size=self.state.batch_size, seed=self.seed,
            processes=processes.count(),
        )  # fmt: skip

    def _report_progress(self) -> None:
        state, budget = self.state, self.budget
        if state.max_steps is not None:
            done = state.step / max(1, state.max_steps)
            left = state.seconds / state.step * (state.max_steps - state.step)
        else:
            done, left = state.seconds / (budget or math.inf), (budget or math.inf) - state.seconds
        held_out = (state.history.get("held_out") or [None])[-1]
        text = f"step {state.step}" + (f", held-out loss {held_out:.4g}" if held_out is not None else "")
        self.progress.tick(min(1.0, done), max(0.0, left), text)

    def _finish(self) -> None:
        state = self.state
        if not state.history or state.history["step"][-1] != state.step:
            self._evaluate()
        if self.checkpoint is not None:
            self.weights.snapshot()
            self._save_checkpoint()
        verdict, held_out = schedule.verdict(state.history["held_out"]), state.history["held_out"][-1]
        advice = "; more time would help" if verdict == "still improving" else ""
        loss = "" if held_out is None else f", held-out loss {held_out:.4g} ({verdict}{advice})"
        message = f"{state.step} steps in {duration(state.seconds)}{loss}."
        self.progress.event("end", message, step=state.step, seconds=state.seconds, held_out=held_out, verdict=verdict)


def _check_alike(identities: list[dict[str, Any]]) -> None:
    """Refuse to train in processes of which one has other images or parameters than the first."""
    for number, identity in enumerate(identities):
        names = [name for name, value in identity.items() if value != identities[0].get(name)]
        if names:
            raise TrainingError(
                f"Process {number} has other images or parameters than process 0 ({', '.join(names)}); give all of "
                "them the same."
            )
