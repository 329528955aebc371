"""The clusters of an atlas as a person named and merged them.

A decision knows a cluster by its most typical images (`imatlas.atlas.decisions`), so it holds for the cluster that most
of those that are left are in now, also after the atlas was learned again. Merged clusters count as the one of them with
the lowest number, which was the largest when they were found; the numbers of all others stay. What the model found
stays, too: a merged cluster can be split again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from imatlas.arguments import check_int
from imatlas.atlas.decisions import Anchors, Decisions, State
from imatlas.atlas.store import Store
from imatlas.errors import InputError

N_ANCHORS = 5
"""Images that a cluster is known by, so that some may leave the atlas."""


@dataclass(frozen=True)
class DecidedClusters:
    """What each cluster of the model counts as, and is called.

    Attributes
    ----------
    merged : ndarray (n_clusters,) int64
        The cluster that each counts as: itself, or the one with the lowest number among those merged with it.
    given : dict {cluster: name}
        Names that were given, by such a number.
    """

    merged: np.ndarray
    given: dict[int, str]

    def name(self, cluster: int) -> str:
        """The name that was given to a cluster, or its number in words."""
        return self.given.get(cluster, f"cluster {cluster}")

    @property
    def names(self) -> list[str]:
        """The name of every cluster."""
        return [self.name(int(cluster)) for cluster in self.merged]

    def parts(self, cluster: int) -> list[int]:
        """The clusters of the model that one consists of; empty if it counts as another."""
        return [int(part) for part in np.flatnonzero(self.merged == cluster)]

    @property
    def any_merged(self) -> bool:
        """Whether a cluster counts as another."""
        return bool((self.merged != np.arange(len(self.merged))).any())


def decided_clusters(state: State, n_clusters: int, cluster_of: Mapping[str, int]) -> DecidedClusters:
    """The clusters as they were decided.

    Parameters
    ----------
    state : State
    n_clusters : int
        Of the model.
    cluster_of : dict {key: cluster}
        Of the images that decisions name, at least; those that are gone are not in it.
    """
    merged = np.arange(n_clusters)
    for merge in state.merges:
        found = merged[[cluster for anchors in merge if (cluster := cluster_at(anchors, cluster_of)) is not None]]
        if len(found):
            merged[np.isin(merged, found)] = found.min()
    named: dict[int, str] = {}
    for anchors, name in state.names.items():
        cluster = cluster_at(anchors, cluster_of)
        if cluster is not None:
            named[cluster] = name
    given: dict[int, str] = {}
    for cluster in sorted(named):  # the largest of merged clusters that has a name gives it to all
        given.setdefault(int(merged[cluster]), named[cluster])
    return DecidedClusters(merged, given)


def cluster_at(anchors: Anchors, cluster_of: Mapping[str, int]) -> int | None:
    """The cluster that most of the images are in that are left, of several the more typical one's; None if none is."""
    found = Counter(cluster_of[key] for key in anchors if key in cluster_of)
    return found.most_common(1)[0][0] if found else None  # of equal counts the first


def anchor_keys(state: State) -> set[str]:
    """The keys of all images that clusters are known by."""
    return {key for some in (state.names, *state.merges) for anchors in some for key in anchors}


def clusters_of(store: Store, state: State) -> DecidedClusters:
    """The clusters of an atlas as they were decided."""
    return decided_clusters(state, store.model("clusters").n_clusters_, _cluster_of(store, anchor_keys(state)))


def labels_of(store: Store, decided: DecidedClusters) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of every image and the confidence in it, (n_images,) each, with merged clusters as one."""
    read = store.table.read(["cluster", "confidence"])
    found, confidence = read["cluster"].to_numpy(), read["confidence"].to_numpy()
    labels = decided.merged[found].astype(found.dtype)
    changed = np.flatnonzero(np.bincount(decided.merged)[labels] > 1)
    if len(changed):
        confidence = confidence.copy()
        model = store.model("clusters")
        confidence[changed] = model.confidence(store.embedding[changed], groups=decided.merged)
    return labels, confidence


def name_cluster(store: Store, decisions: Decisions, cluster: int, name: str) -> None:
    """Name a cluster by its number, or take all its names away; see `Atlas.name_cluster`."""
    decided = clusters_of(store, decisions.state)
    number = _known(decided, cluster)
    if name.strip():
        decisions.name_cluster(_typical(store, number), name)
        return
    named = _keys_at(store, decisions.state.names, decided.parts(number))
    if not named:
        raise InputError(f"Cluster {number} has no name that could be taken away.")
    decisions.name_cluster(named, "")


def merge_clusters(store: Store, decisions: Decisions, clusters: Sequence[int]) -> None:
    """Merge clusters by their numbers; see `Atlas.merge_clusters`."""
    decided = clusters_of(store, decisions.state)
    numbers = sorted({_known(decided, cluster) for cluster in clusters})
    if len(numbers) < 2:
        raise InputError(f"At least two different clusters can be merged. Got {list(clusters)}.")
    decisions.merge_clusters([_typical(store, number) for number in numbers])


def split_cluster(store: Store, decisions: Decisions, cluster: int) -> None:
    """Split a merged cluster by its number; see `Atlas.split_cluster`."""
    decided, state = clusters_of(store, decisions.state), decisions.state
    anchors = [anchors for merge in state.merges for anchors in merge]
    keys = _keys_at(store, anchors, decided.parts(_known(decided, cluster)))
    decisions.split_cluster(keys)


def _known(decided: DecidedClusters, cluster: int) -> int:
    """The cluster that a number counts as.

    Raises
    ------
    ParameterError
        If there is no such number.
    """
    return int(decided.merged[check_int(cluster, "cluster", "the atlas", low=0, high=len(decided.merged) - 1)])


def _typical(store: Store, cluster: int) -> Anchors:
    """The keys of the most typical images of a cluster.

    Raises
    ------
    InputError
        If it has no images.
    """
    rows = np.flatnonzero(store.table.read(["cluster"])["cluster"].to_numpy() == cluster)
    if not len(rows):
        raise InputError(f"Cluster {cluster} has no images any more, so nothing can be decided about it.")
    nearest = store.nearest_first(rows, store.model("clusters").cluster_centers_[cluster])[:N_ANCHORS]
    return tuple(str(store.keys[int(row)].as_py()) for row in nearest)


def _keys_at(store: Store, anchors: Iterable[Anchors], clusters: list[int]) -> list[str]:
    """The keys of those anchors that are in one of the clusters now, sorted."""
    known = list(anchors)
    cluster_of = _cluster_of(store, {key for keys in known for key in keys})
    return sorted({key for keys in known if cluster_at(keys, cluster_of) in clusters for key in keys})


def _cluster_of(store: Store, wanted: set[str]) -> dict[str, int]:
    """The cluster of the model of each of some images that are in the atlas."""
    if not wanted:
        return {}
    numbers = store.table.read(["cluster"])["cluster"].to_numpy()
    return {key: int(numbers[row]) for row, key in enumerate(store.keys.to_pylist()) if key in wanted}
