"""How the time for learning an atlas is split over its stages."""

from __future__ import annotations

from dataclasses import dataclass

from imatlas.atlas.report_sections import MAX_COMPARED

AFTER_ENCODER = {"map": 0.04, "clusters": 0.05, "outliers": 0.01, "layout": 0.04}
"""Shares of the stages between the encoder and the generator."""

ROOMY = ("clusters", "outliers", "layout")
"""Stages that may take `ROOM` if needed: UMAP compiles on first use."""

SHARES = {
    encoder: {"encoder": of_encoder, **AFTER_ENCODER, "generator": 0.76 - of_encoder, "report": 0.10}
    for encoder, of_encoder in (("pretrained", 0.25), ("self-supervised", 0.35), ("own", 0.74))
}
"""Share of the budget of each stage, by encoder. Time that an early stage leaves goes to the generator, an autoencoder
with a mixture prior; if that is the encoder, too, only its prior is left to fit in the generator's stage."""

MIN_SHARE = (0.25, 0.5)
"""Part of its share that a stage gets even if earlier stages overran: any stage, and the generator."""

ROOM = 0.15
"""Share of the budget that each stage of `ROOMY` may take."""

REPORT_SECONDS, SECONDS_PER_COMPARED, LARGE_REPORT_SECONDS = 3.0, 0.003, 9.0
"""Seconds to write the report: in any case, for each image of a set that is searched for edited near-duplicates, and in
all for larger sets. Measured: 3.7 s for 261 photographs, 6.7 s for 1,000, 8 s for 60,000 images of 28 px."""

JUDGING, MIN_JUDGING = 0.6, 0.15
"""Share of the report's time for scoring new images: at most, and if writing the report leaves less."""


@dataclass(frozen=True)
class TimeBudget:
    """The time for learning one atlas.

    Attributes
    ----------
    encoder : {'pretrained', 'own', 'self-supervised'}
    seconds : float
        For all stages together.
    n_images : int
    """

    encoder: str
    seconds: float
    n_images: int

    @property
    def shares(self) -> dict[str, float]:
        """The share of each stage, in their order."""
        return SHARES[self.encoder]

    def allowance(self, stage: str, spent: float) -> float:
        """Seconds that a stage may take after `spent` seconds: its share, and what earlier stages left."""
        names = list(self.shares)
        due = sum(self.shares[name] for name in names[: names.index(stage) + 1]) * self.seconds
        if stage == "generator" or (stage == "encoder" and self.encoder == "own"):  # training fills its time
            due -= max(0.0, self.report_seconds - self.shares["report"] * self.seconds)
        least = ROOM if stage in ROOMY else MIN_SHARE[stage == "generator"] * self.shares[stage]
        return max(least * self.seconds, due - spent)

    @property
    def report_seconds(self) -> float:
        """Estimated time to write the report, which may exceed its share of a short budget."""
        if self.n_images > MAX_COMPARED:
            return LARGE_REPORT_SECONDS
        return REPORT_SECONDS + SECONDS_PER_COMPARED * self.n_images

    def judging_seconds(self, spent: float) -> float:
        """Seconds for scoring new images: what writing the report leaves, or a small part of its share."""
        allowed = self.allowance("report", spent)
        return max(MIN_JUDGING * allowed, min(JUDGING * allowed, allowed - self.report_seconds))


def default_budget(n_images: int) -> float:
    """Seconds of learning by default: 90 up to 500 images, 180 to 5,000, 300 to 20,000, 600 above."""
    for most, seconds in ((500, 90.0), (5_000, 180.0), (20_000, 300.0)):
        if n_images <= most:
            return seconds
    return 600.0
