"""Out of it: the verbs of an atlas that make new images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from imatlas.arguments import check_int, check_number, check_seed, refused
from imatlas.atlas.store import OpenedAtlas
from imatlas.errors import InputError
from imatlas.images.sources.given import as_several
from imatlas.images.tensors import to_view
from imatlas.result import Result
from imatlas.tasks.conditions import Cell, MapConditions, require_conditional, sample_from_map
from imatlas.tasks.score import MOST_TRAIN, NOT_MEASURED, autoencoder_of, encoder_in_words
from imatlas.tasks.score import score as score_generator


class Making(OpenedAtlas):
    """The verbs that make new images, and judge them."""

    @cached_property
    def map_conditions(self) -> MapConditions:
        """Where the images lie on the map, and what the generator is told of each cell."""
        return MapConditions.on(self.model("map"), self.rows["cell"], self.rows["cluster"])

    def sample(
        self,
        n: int,
        *,
        cell: Cell | Sequence[Cell] | None = None,
        cluster: int | Sequence[int] | None = None,
        like: Any = None,
        strength: float = 0.6,
        weights: Sequence[float] | None = None,
        random_state: int = 0,
    ) -> np.ndarray:
        """New images; image i depends on (`random_state`, i) only.

        Parameters
        ----------
        n : int
        cell : (row, column), flat index, or several, optional
            Where on the map they are to lie.
        cluster : int or several, optional
            In which cluster.
        like : key of an image in the atlas, any one image as `search` takes it, or several, optional
            Alone: variations of these images, in turn. With cells or clusters: their cells count.
        strength : float in [0, 1]
            Of variations: 0 gives the image back as far as the model keeps it, 1 new ones of its place on the map.
        weights : sequence of float, optional
            How often each cell, cluster and image that was asked for comes up, in this order. None: equally often.

        Returns
        -------
        array (n, H, W, C) uint8

        Raises
        ------
        ParameterError
            If a number is none, or out of its range.
        InputError
            If a cell or cluster is not there, or an image cannot be read.
        """
        n, random_state = check_int(n, "n", "sample", low=1), check_seed(random_state, "sample")
        strength = check_number(strength, "strength", "sample", low=0, high=1)
        model = self.model("generator")
        asked = {"cell": cell, "cluster": cluster, "weights": weights}
        asked = {name: value for name, value in asked.items() if value is not None}
        likes = [] if like is None else as_several(like, "like")
        near = self._cells_of(likes)
        if likes and not asked and strength < 1:
            require_conditional(model)
            turn = np.arange(n) % len(likes)
            told = self.map_conditions.prototypes[near[turn]]
            pixels = self._pixels_of(likes)[turn]
            return to_view(model.vary(pixels, strength=strength, y=told, random_state=random_state), self.spec)
        if likes:
            asked["near"] = near.tolist()
        return to_view(sample_from_map(model, self.map_conditions, n, random_state=random_state, **asked), self.spec)

    def morph(self, *images: Any, cells: Sequence[Cell] = (), frames: int = 60, random_state: int = 0) -> np.ndarray:
        """A film from image to image, or along a path of cells, through images that do not exist.

        Parameters
        ----------
        *images : keys of images in the atlas, or images as `search` takes them
            Two or more; the film passes through each as far as the model keeps it.
        cells : sequence of (row, column) or flat index
            Two or more, in place of images: new images of these and all cells between, from one and the same noise.
        frames : int
        random_state : int
            Of that noise.

        Returns
        -------
        array (frames, H, W, C) uint8

        Raises
        ------
        ParameterError
            If `frames` is no int of at least 2.
        InputError
            If there are not two places to go between.
        """
        frames = check_int(frames, "frames", "morph", low=2)
        random_state = check_seed(random_state, "morph")
        if isinstance(cells, str) or not hasattr(cells, "__len__"):
            raise refused("cells", "morph", "a sequence of (row, column) or of flat indices", cells)
        model, map_conditions = self.model("generator"), self.map_conditions
        if bool(images) == bool(len(cells)) or max(len(images), len(cells)) < 2:
            raise InputError(
                f"A morph goes between two or more images, or along two or more cells. Got {len(images)} images and "
                f"{len(cells)} cells."
            )
        require_conditional(model)
        if images:
            told, pixels = map_conditions.prototypes[self._cells_of(images)], self._pixels_of(images)
        else:
            told, pixels = map_conditions.prototypes[map_conditions.path(cells)], None
        return to_view(model.morph(frames, images=pixels, y=told, random_state=random_state), self.spec)

    def sliders(self, image: Any = None, *, directions: int = 8, steps: int = 9) -> np.ndarray:
        """What changes along the directions in which the images differ most; see `imatlas.Autoencoder.sliders`.

        Parameters
        ----------
        image : key of an image in the atlas, or any one image as `search` takes it, optional
            Where to start from. None: the mean of all.
        directions, steps : int
            Directions, the longest first, and images along each.

        Returns
        -------
        array (directions, steps, H, W, C) uint8

        Raises
        ------
        InputError
            If the generator has no vectors, or the image cannot be read.
        """
        directions = check_int(directions, "directions", "sliders", low=1)
        steps = check_int(steps, "steps", "sliders", low=2)
        generator = self.model("generator")
        model = autoencoder_of(generator)
        if model is None:
            raise InputError(f"This atlas has a {type(generator).__name__}, which has no vectors to move along.")
        made = model.sliders(
            None if image is None else self._pixels_of([image]), n_directions=directions, n_steps=steps
        )
        return to_view(made.reshape(-1, *made.shape[2:]), self.spec).reshape(*made.shape[:4], -1)

    def score(self, *, random_state: int = 0) -> Result:
        """How good the generator is, measured on the images that were held out from learning.

        Works from the thumbnails, so it also works on an atlas that was moved away from its images.
        """
        random_state = check_seed(random_state, "score")
        train, held_out = (np.flatnonzero(self.rows["held_out"] == side) for side in (False, True))
        if not len(held_out):
            return NOT_MEASURED
        if len(train) > MOST_TRAIN:
            train = np.sort(np.random.default_rng(random_state).choice(train, MOST_TRAIN, replace=False))
        return score_generator(
            self.model("generator"),
            self.pixels(train),
            self.pixels(held_out),
            spec=self.spec,
            embed=self.embed,
            encoder=encoder_in_words(self.model("encoder")),
            features=(self.embedding[train], self.embedding[held_out]),
            sample=lambda n, seed: sample_from_map(self.model("generator"), self.map_conditions, n, random_state=seed),
            random_state=random_state,
        )

    def _cells_of(self, images: Sequence[Any]) -> np.ndarray:
        """The cell of each image of the atlas, by its key, or of another one."""
        return np.array([int(self.model("map").predict(self._place_of(image))[0]) for image in images], np.int64)
