"""The verbs of an `Atlas` by which a person decides: names, merged clusters, duplicates, and undo."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from imatlas.atlas import decided_clusters as decided
from imatlas.atlas import decided_duplicates, exports
from imatlas.atlas.decided_clusters import DecidedClusters
from imatlas.atlas.decisions import Decisions
from imatlas.atlas.store import Store


class Deciding:
    """A part of `Atlas`."""

    store: Store

    @cached_property
    def decisions(self) -> Decisions:
        """What was decided: labels, images that the next `learn` leaves out, clusters that are named and merged.

        Every decision is written to the atlas at once, and can be undone; the studio writes here, too. An atlas at an
        address is only read.
        """
        return Decisions(self.store.folder, self.store.address)

    @property
    def decided_clusters(self) -> DecidedClusters:
        """What each cluster counts as, and the names that were given."""
        return decided.clusters_of(self.store, self.decisions.state)

    def name_cluster(self, cluster: int, name: str) -> None:
        """Name a cluster, or take its name away by ""; a decision that can be undone.

        Parameters
        ----------
        cluster : int
        name : str

        Raises
        ------
        ParameterError, InputError
            If there is no such cluster, it has no images, or no name that could be taken away.
        """
        decided.name_cluster(self.store, self.decisions, cluster, name)

    def merge_clusters(self, clusters: Sequence[int]) -> None:
        """Take clusters as one from now on; a decision that can be undone.

        Each is known by its most typical images, so they are one also after the atlas was learned again, as long as
        one of these is in it. The merged cluster has the lowest of their numbers, and its name, or else the next name
        that was given.

        Parameters
        ----------
        clusters : sequence of int

        Raises
        ------
        ParameterError, InputError
            If there is no such cluster, it has no images, or there are fewer than two.
        """
        decided.merge_clusters(self.store, self.decisions, clusters)

    def split_cluster(self, cluster: int) -> None:
        """Split a merged cluster into those it was merged from; a decision that can be undone.

        Parameters
        ----------
        cluster : int

        Raises
        ------
        ParameterError, InputError
            If there is no such cluster, or it is not a merged one.
        """
        decided.split_cluster(self.store, self.decisions, cluster)

    def not_duplicates(self, keys: Sequence[str], others: Sequence[str] = ()) -> None:
        """Take images for no duplicates of some others, or, without others, of each other; can be undone.

        `duplicates`, its plans and the next `learn` respect it.

        Parameters
        ----------
        keys, others : sequence of str

        Raises
        ------
        InputError
            If an image is not in the atlas, or there is no pair of them.
        """
        exports.chosen_rows(self.store, self.decisions, [*keys, *others])  # refuses unknown ones
        self.decisions.not_duplicates(keys, others)

    def best_duplicate(self, key: str) -> None:
        """Keep an image rather than its duplicates, whichever of them is larger; can be undone.

        Parameters
        ----------
        key : str

        Raises
        ------
        InputError
            If it is not in the atlas.
        """
        exports.chosen_rows(self.store, self.decisions, [key])
        self.decisions.best_duplicate(key)

    def undo(self) -> list[str]:
        """Take the last of the `decisions` back; the files of duplicates that the studio moved come back, too.

        Returns
        -------
        list of str
            What became of files, in sentences.

        Raises
        ------
        InputError
            If nothing was decided.
        """
        return decided_duplicates.undo(self.store, self.decisions)

    def redo(self) -> list[str]:
        """Decide again what was taken back last, if nothing was decided since; see `undo`.

        Raises
        ------
        InputError
            If there is nothing.
        ArtifactError
            If files are to be moved again that are gone or have changed.
        """
        return decided_duplicates.redo(self.store, self.decisions)
