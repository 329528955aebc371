"""The one loop that trains every network.

A model says what to learn: `_build(spec)` gives the module, `_optimizers(module)` its optimizers by name, and
`_losses(module, batch, generator)` yields `(optimizer name, loss, logs)`. The loop owns all the rest: batches, budget,
precision, averaged weights, the finite check with its way back, checkpoints, held-out loss, progress.

What makes a run repeatable: the step counter never goes back; the randomness of step s comes from (seed, s); batch
number n is cut from an endless row of permutations, each drawn from (seed, epoch); the clock is read for two decisions
only, other programs are looked at only with a budget, and all that follows is written down with its step. So weights
are a function of data, parameters and decisions.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field, TypeAdapter
from torch import Tensor
from torch.optim import Optimizer

from imatlas import seeding
from imatlas.errors import ArtifactError, TrainingError
from imatlas.system import threads
from imatlas.training import checkpoints, devices, schedule
from imatlas.training.batches import Batch, Data, batch_rows, make_batch
from imatlas.training.checkpoints import Checkpoint, Weights
from imatlas.training.progress import Callback, Interrupt, Progress, duration

SNAPSHOT = 100
"""Steps between two copies of the state in memory, to which a run goes back when a loss is not finite."""

CHECKPOINT_SECONDS = 30.0
"""A snapshot also goes to the disk where the last one there is older than this."""

WARM_UP = 24
"""Steps after which a run with a budget decides on precision and batch size."""

PROBE = range(12, 20)
"""Warm-up steps that run in bf16 where the hardware has it; compared with as many fp32 steps before them."""

LEAST_SHARE = 0.1
"""Of the budget, left for a network however long what came before it took."""

WATCH_SECONDS = 4.0
"""With a budget, how often a run looks whether other programs want the cores; a look takes 0.05 s."""

CLIP = 1.0
"""Largest norm of a gradient; a longer one is scaled down to it."""

MAX_FAILURES = 6
"""Restarts without reaching the next snapshot, after which a run gives up."""

CLEAN = 5
"""Snapshots without a restart after which a lowered rate is doubled again: an odd batch must not slow the whole run."""

Decision = dict[str, Any]


class Learner(Protocol):
    """What the loop needs of a model."""

    budget: Any
    max_steps: int | None
    batch_size: int
    learning_rate: float
    device: str
    precision: Any
    progress: bool
    _half_life: float
    _max_epochs: float | None

    def _optimizers(self, module: torch.nn.Module) -> dict[str, Optimizer]: ...

    def _losses(
        self, module: torch.nn.Module, batch: Batch, generator: torch.Generator
    ) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]: ...

    def _held_out_loss(self, module: torch.nn.Module, batch: Batch, generator: torch.Generator) -> Tensor: ...


@dataclass
class State:
    """Where a run stands, in plain values: with the tensors this is all that a checkpoint holds."""

    batch_size: int
    precision: devices.Precision | None = None
    threads: int | None = None
    """Of PyTorch, where a look at the machine chose them."""
    max_steps: int | None = None
    decay_start: int | None = None
    step: int = 0
    images_seen: int = 0
    rate: float = 1.0
    failures: int = 0
    """Restarts since the last snapshot."""
    clean: int = 0
    """Snapshots since the last restart, or since the rate was last raised."""
    seconds: float = 0.0
    decisions: list[Decision] = field(default_factory=list)
    history: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped early and goes no further."""
        return bool(self.decisions) and self.decisions[-1]["decision"] == "stop"


class Run:
    """One run of a learner: `Run(…).run()` trains until its `max_steps` or its `budget` is used up.

    Parameters
    ----------
    learner : Learner
        The model: its training fields, `_optimizers`, `_losses` and `_held_out_loss`.
    module : torch.nn.Module
        The network as built, on the CPU.
    data : Data
        Images to learn from and images kept aside.
    seed : int
        Decides everything that chance decides.
    checkpoint : path or Checkpoint, optional
        A folder. Where it holds a checkpoint of the same run, the run goes on from there; else it is filled as the
        run goes.
    identity : dict, optional
        What must agree between a checkpoint and this run: parameters and data fingerprint, as plain values.
    replay : list of dict, optional
        The decisions of an earlier run; the clock is then never read.
    callback : callable, optional
        Gets every event as a dict; `imatlas.training.progress.JsonLines` writes them to a file.
    spent : float
        Seconds of the budget that are used up already.
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
        spent: float = 0.0,
    ) -> None:
        self.learner, self.data, self.seed = learner, data, seed
        self.checkpoint = Checkpoint.at(checkpoint)
        self.folder = None if self.checkpoint is None else self.checkpoint.folder
        self.identity = json.loads(json.dumps(identity or {}))  # as it will come back from a file
        self.pending = None if replay is None else list(replay)
        self.budget = schedule.parse_budget(learner.budget)
        if self.budget is not None:
            self.budget = max(LEAST_SHARE * self.budget, self.budget - spent)
        self.device = devices.pick_device(learner.device)
        module = devices.place(module, self.device).train()
        self.optimizers = learner._optimizers(module)
        self.weights = Weights(module, self.optimizers, learner._half_life)
        self.base_rates = {name: [g["lr"] for g in o.param_groups] for name, o in self.optimizers.items()}
        self.state = self._start_state()
        self.progress = Progress(type(learner).__name__, show=learner.progress, callback=callback)
        self.totals, self.n_totals = dict[str, Tensor](), 0
        self.probe_seconds: dict[int, float] = {}
        self.expected_steps, self.evaluation_seconds = 0, 0.0
        self.generator = torch.Generator(device=self.device)
        self._begin, self._saved_at = time.monotonic(), 0.0
        self.most_threads, self._watch_at = torch.get_num_threads(), 0.0

    def _start_state(self) -> State:
        learner, n_images = self.learner, len(self.data)
        size = min(learner.batch_size, n_images)
        max_steps = learner.max_steps
        if max_steps is None and self.budget is None:
            max_steps = schedule.default_steps(n_images, size)
        if learner.max_steps is None and learner._max_epochs is not None:
            max_steps = min(max_steps or 10**9, max(1, round(learner._max_epochs * n_images / size)))
        precision: devices.Precision | None = learner.precision
        if learner.precision == "auto":
            able = devices.has_bf16(self.device)
            # without a budget the clock has no say: what the hardware has is what is used
            precision = ("bf16" if able else "fp32") if self.budget is None or not able else None
        decay_start = None if max_steps is None else int(schedule.DECAY_SHARE * max_steps)
        return State(batch_size=size, precision=precision, max_steps=max_steps, decay_start=decay_start)

    def run(self) -> tuple[torch.nn.Module, State]:
        """Train.

        Returns
        -------
        module : torch.nn.Module
            With the averaged weights.
        state : State
            The record of the run; `interrupted` where Ctrl-C ended it.

        Raises
        ------
        TrainingError
            Where the loss stays non-finite, or not even one image fits into memory.
        ArtifactError
            Where the checkpoint belongs to a run with other parameters or data, and is not spare.
        KeyboardInterrupt
            On Ctrl-C with a checkpoint, after it was written. Without one, the run ends early and what was learned so
            far is kept (`State.interrupted`). A second Ctrl-C stops at once.
        """
        self._resume()
        self._begin = time.monotonic() - self.state.seconds
        self._saved_at = self._watch_at = self.state.seconds
        self.weights.snapshot()
        self._announce()
        try:
            with Interrupt() as interrupt:
                while not self._finished():
                    if self._replayed():
                        continue
                    self._watch()
                    self._read_clock()
                    began = time.perf_counter()
                    try:
                        fine = self._step(self._next_batch())
                    except (RuntimeError, MemoryError) as error:
                        if not devices.is_out_of_memory(error):
                            raise
                        self._halve_batch(error)
                    else:
                        self._count_step(began) if fine else self._roll_back()
                    if interrupt.asked:
                        self._stop_early()
                        break
            self._end()
            return self.weights.average.requires_grad_(True), self.state
        finally:
            torch.set_num_threads(self.most_threads)
            self.progress.close()

    def _finished(self) -> bool:
        return self.state.max_steps is not None and self.state.step >= self.state.max_steps

    def _count_step(self, began: float) -> None:
        """Count step number `state.step`, which succeeded, and do what is due after it."""
        state = self.state
        if state.step < WARM_UP:
            devices.synchronize(self.device)
            self.probe_seconds[state.step] = time.perf_counter() - began
        state.images_seen += state.batch_size
        state.step += 1
        if state.step % checkpoints.EMA_EVERY == 0 or self._finished():
            self.weights.update_ema(state.step)
        state.seconds = time.monotonic() - self._begin
        if state.step % schedule.evaluation_interval(state.max_steps or self.expected_steps) == 0 or self._finished():
            self._evaluate()
        if state.step % SNAPSHOT == 0:
            state.failures, state.clean = 0, state.clean + 1
            if state.rate < 1 and state.clean >= CLEAN:
                state.rate, state.clean = 2 * state.rate, 0
            self.weights.snapshot()
            if state.seconds - self._saved_at >= CHECKPOINT_SECONDS:
                self._save_checkpoint()
        self._tick()

    def _next_batch(self) -> Batch:
        data, state = self.data, self.state
        rows = batch_rows(len(data), self.seed, state.images_seen, state.batch_size)
        if data.rows is not None:
            rows = data.rows[rows]
        y = None if data.y is None else data.y[rows]
        return make_batch(data.pixels[rows], data.spec, self.device, y, n_images=len(data))

    def _step(self, batch: Batch) -> bool:
        """One step of every optimizer; False where a loss or its gradient is not finite."""
        state = self.state
        share = state.rate * schedule.learning_rate(state.step, state.decay_start, state.max_steps)
        for name, optimizer in self.optimizers.items():
            for group, base in zip(optimizer.param_groups, self.base_rates[name], strict=True):
                group["lr"] = base * share
        self.generator.manual_seed(seeding.seed_of(self.seed, "step", state.step))
        losses = self.learner._losses(self.weights.live, batch, self.generator)
        first = True
        while True:
            with devices.autocast(self.device, self._precision()):
                item = next(losses, None)
            if item is None:
                self.n_totals += 1
                return True
            name, loss, logs = item
            for optimizer in self.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            weights = [p for group in self.optimizers[name].param_groups for p in group["params"]]
            norm = torch.nn.utils.clip_grad_norm_(weights, CLIP)
            if not math.isfinite(float(loss.detach() + norm)):
                return False
            self.optimizers[name].step()
            self._add_up({"train": loss, **logs} if first else logs)
            first = False

    def _precision(self) -> devices.Precision:
        if self.state.precision is not None:
            return self.state.precision
        return "bf16" if self.state.step in PROBE else "fp32"

    def _add_up(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().float()
            self.totals[name] = self.totals[name] + value if name in self.totals else value

    def _decide(self, decision: str, message: str, **values: Any) -> None:
        """Write a decision down and act on it."""
        entry = {"step": self.state.step, "decision": decision, **values}
        self.state.decisions.append(entry)
        self.progress.event("decision", message, **entry)
        self._act(entry)

    def _act(self, entry: Decision) -> None:
        state, kind = self.state, entry["decision"]
        if kind in ("rollback", "out_of_memory"):
            self.weights.restore()
        if kind == "rollback":
            state.failures, state.clean = state.failures + 1, 0
            # the batch that failed is not tried again
            state.images_seen += state.batch_size
            state.step += 1
        if kind == "snapshot":
            self.weights.snapshot()
        if kind == "stop":
            self.weights.update_ema(state.step)
        for name in ("precision", "batch_size", "max_steps", "decay_start", "rate", "threads"):
            if name in entry:
                setattr(state, name, entry[name])
        if kind == "threads":
            torch.set_num_threads(entry["threads"])
        if kind == "warm_up":
            self.expected_steps = entry["expected_steps"]

    def _replayed(self) -> bool:
        """Act on the next decision of the run that is replayed, if it was taken at this step."""
        if not self.pending or self.pending[0]["step"] != self.state.step:
            return False
        entry = self.pending.pop(0)
        self.state.decisions.append(entry)
        self._act(entry)
        return True

    def _watch(self) -> None:
        """Leave to other programs the cores that they use: where a core is shared, a backward pass takes ten times as
        long on it, because oneDNN's threads spin until the last one is done. While precisions are compared all stays.
        """
        state = self.state
        if self.budget is None or self.pending is not None or self.device.type != "cpu" or self.most_threads < 2:
            return
        if 0 < state.step < WARM_UP or time.monotonic() - self._begin < self._watch_at:
            return
        now = state.threads or self.most_threads
        free = threads.free_threads(self.most_threads, now)
        self._watch_at = time.monotonic() - self._begin + WATCH_SECONDS
        if free != now:
            few = f"Other programs use this machine: {free} of {self.most_threads} threads, until cores are free."
            self._decide("threads", few if free < now and state.threads is None else "", threads=free)

    def _read_clock(self) -> None:
        """The only two places where time decides anything."""
        state, budget = self.state, self.budget
        if budget is None or self.pending is not None or state.step == 0:
            return
        taken = {entry["decision"] for entry in state.decisions}
        seconds = state.seconds = time.monotonic() - self._begin
        if "warm_up" not in taken and (state.step >= WARM_UP or seconds > 0.1 * budget):
            self._decide_precision_and_batch(budget - seconds)
        if "schedule" not in taken and seconds >= schedule.DECAY_SHARE * budget:
            left = budget - seconds - self.evaluation_seconds - 0.01 * budget
            fit = state.step + max(1, int(left * state.step / seconds))
            if state.max_steps is not None and state.max_steps <= fit:
                self._decide("schedule", "", max_steps=state.max_steps, decay_start=state.decay_start)
            else:
                self._decide("schedule", "", max_steps=fit, decay_start=state.step)

    def _decide_precision_and_batch(self, seconds_left: float) -> None:
        state = self.state
        timed = {step: s for step, s in self.probe_seconds.items() if step >= min(4, state.step - 1)}
        fp32 = [s for step, s in timed.items() if step not in PROBE]
        bf16 = [s for step, s in timed.items() if step in PROBE]
        precision, step_seconds = schedule.faster_precision(fp32, bf16 if state.precision is None else [])
        size, steps = schedule.batch_for_budget(state.batch_size, step_seconds, seconds_left)
        message = f"{state.batch_size} images a step leave too few steps in the budget; going on with {size}."
        self._decide(
            "warm_up",
            message if size < state.batch_size else "",
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
        self._decide(
            "rollback",
            f"The loss was not finite at step {state.step}; going on from the last good state at half the rate.",
            rate=state.rate / 2,
        )

    def _halve_batch(self, error: BaseException) -> None:
        state = self.state
        if state.batch_size == 1:
            raise TrainingError("There is not enough memory for one image; use smaller images.") from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        size = state.batch_size // 2
        self._decide(
            "out_of_memory", f"There is not enough memory for {state.batch_size} images a step; going on with {size}.",
            batch_size=size,
        )  # fmt: skip

    def _save_checkpoint(self) -> None:
        if self.folder is None:
            return
        values = {"identity": self.identity, "seed": self.seed, "state": asdict(self.state)}
        try:
            checkpoints.write(self.folder, self.weights.kept, values)
        except (OSError, ArtifactError) as error:
            self.progress.event(
                "problem", f"The checkpoint could not be written ({error}); training goes on without it."
            )
        else:
            self.progress.event("checkpoint", step=self.state.step, folder=str(self.folder))
        self._saved_at = time.monotonic() - self._begin

    def _resume(self) -> None:
        """Go on from the checkpoint, where there is one; one that is spare never keeps the run from beginning."""
        if self.checkpoint is None:
            return
        if not self.checkpoint.spare:
            self._read_checkpoint(self.checkpoint)
            return
        self.weights.snapshot()
        begun = self.weights.kept, self.seed, self.state, self.pending, torch.get_num_threads()
        try:
            self._read_checkpoint(self.checkpoint)
        except (OSError, ArtifactError) as error:
            told = str(error).partition(";")[0].rstrip(".")
            self.progress.event("problem", f"{told}; {self.checkpoint.drop()}.")
            self.weights.kept, self.seed, self.state, self.pending, n_threads = begun
            self.weights.restore()
            self.expected_steps = 0
            torch.set_num_threads(n_threads)

    def _read_checkpoint(self, checkpoint: Checkpoint) -> None:
        saved = checkpoints.read(checkpoint.folder)
        if saved is None:
            return
        if isinstance(saved, str):
            told = f"The checkpoint in '{checkpoint.folder}' is damaged ({saved}); training starts anew."
            self.progress.event("problem", told)
            return
        try:
            self._go_on(checkpoint, *saved)
        except ArtifactError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise ArtifactError(
                f"The checkpoint in '{checkpoint.folder}' is not of this network ({reason}); delete it to start anew."
            ) from error
        self.progress.event("resume", f"Going on from step {self.state.step} of '{self.folder}'.", step=self.state.step)

    def _go_on(self, checkpoint: Checkpoint, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Put the run where a checkpoint says."""
        checkpoints.check_same_run(checkpoint, values["identity"], self.identity)
        parameters = {
            f"{part}/{name}" for part in ("live", "average") for name, _ in self.weights.live.named_parameters()
        }
        for name, tensor in tensors.items():
            if (name in parameters or name.startswith("optimizer/")) and not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"'{name}' is not finite")
        self.weights.kept = tensors
        self.seed = TypeAdapter(Annotated[int, Field(ge=0, lt=2**63)]).validate_python(values["seed"], strict=True)
        state = TypeAdapter(State).validate_python(asdict(State(**values["state"])))
        if not 1 <= state.batch_size <= self.state.batch_size or state.step < 0:
            raise ValueError(f"a batch of {state.batch_size} images at step {state.step}")
        self.state = state
        self.weights.restore()
        for entry in self.state.decisions:
            if entry["decision"] == "warm_up":
                self.expected_steps = entry["expected_steps"]
        if self.state.threads is not None:
            torch.set_num_threads(self.state.threads)
        if self.pending is not None:
            self.pending = self.pending[len(self.state.decisions) :]

    def _stop_early(self) -> None:
        if self.folder is not None:
            self._decide("snapshot", "")
            self._save_checkpoint()
            self.progress.event(
                "stop", f"Stopped at step {self.state.step}; the same call goes on from '{self.folder}'."
            )
            raise KeyboardInterrupt
        self._decide(
            "stop", f"Stopped at step {self.state.step}; what was learned so far is kept.", max_steps=self.state.step
        )

    def _evaluate(self) -> None:
        """Held-out loss of the averaged weights, and a line in the history."""
        began = time.monotonic()
        state, data = self.state, self.data
        generator = self.generator.manual_seed(seeding.seed_of(self.seed, "held out"))
        total, n_images = 0.0, len(data.held_out)
        with torch.no_grad(), devices.autocast(self.device, self._precision()):
            for start in range(0, n_images, state.batch_size):
                part = slice(start, start + state.batch_size)
                y = None if data.held_out_y is None else data.held_out_y[part]
                batch = make_batch(data.held_out[part], data.spec, self.device, y)
                total += float(self.learner._held_out_loss(self.weights.average, batch, generator)) * len(batch.x)
        numbers: dict[str, Any] = {name: float(value) / max(1, self.n_totals) for name, value in self.totals.items()}
        numbers["held_out"] = total / n_images if n_images else None
        self.totals, self.n_totals = {}, 0
        self.evaluation_seconds = time.monotonic() - began
        state.seconds = time.monotonic() - self._begin
        line = {"step": state.step, "images_seen": state.images_seen, "seconds": round(state.seconds, 3), **numbers}
        for name, value in line.items():
            state.history.setdefault(name, []).append(value)
        self.progress.event("loss", **line)

    def _announce(self) -> None:
        n_weights = sum(p.numel() for p in self.weights.live.parameters())
        self.progress.event(
            "start",
            f"Learning from {len(self.data)} images with {n_weights / 1e6:.2f} M weights on {self.device}.",
            n_images=len(self.data), n_held_out=len(self.data.held_out), n_weights=n_weights, device=str(self.device),
            threads=torch.get_num_threads(), budget=self.budget, max_steps=self.state.max_steps,
            batch_size=self.state.batch_size, seed=self.seed,
        )  # fmt: skip

    def _tick(self) -> None:
        state, budget = self.state, self.budget
        if state.max_steps is not None:
            done = state.step / max(1, state.max_steps)
            left = state.seconds / state.step * (state.max_steps - state.step)
        else:
            done, left = state.seconds / (budget or math.inf), (budget or math.inf) - state.seconds
        held_out = (state.history.get("held_out") or [None])[-1]
        text = f"step {state.step}" + (f", held-out loss {held_out:.4g}" if held_out is not None else "")
        self.progress.tick(min(1.0, done), max(0.0, left), text)

    def _end(self) -> None:
        state = self.state
        if not state.history or state.history["step"][-1] != state.step:
            self._evaluate()
        if self.folder is not None:
            self.weights.snapshot()
            self._save_checkpoint()
        words = schedule.verdict(state.history["held_out"])
        held_out = state.history["held_out"][-1]
        advice = "; more time would help" if words == "still improving" else ""
        loss = "" if held_out is None else f", held-out loss {held_out:.4g} ({words}{advice})"
        self.progress.event(
            "end",
            f"{state.step} steps in {duration(state.seconds)}{loss}.",
            step=state.step, seconds=state.seconds, held_out=held_out, verdict=words,
        )  # fmt: skip
