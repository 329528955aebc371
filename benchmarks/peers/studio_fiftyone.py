"""A FiftyOne dataset of images, with their places on the map and their embeddings, and its app.

`studio_fiftyone.py prepare TABLE NAME`, and `studio_fiftyone.py launch NAME PORT`.
"""

import sys

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np
import pyarrow.parquet as pq


def prepare(file, name):
    table = pq.read_table(file)
    if name in fo.list_datasets():
        fo.delete_dataset(name)
    dataset = fo.Dataset(name, persistent=True)
    columns = [table[column].to_pylist() for column in ("file", "cluster", "outlier")]
    dataset.add_samples(
        [fo.Sample(filepath=file, cluster=cluster, outlier=outlier) for file, cluster, outlier in zip(*columns)]
    )
    dataset.compute_metadata()
    embeddings = np.stack(table["embedding"].to_numpy())
    points = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
    fob.compute_visualization(dataset, embeddings=embeddings, points=points, brain_key="layout")
    fob.compute_similarity(dataset, embeddings=embeddings, brain_key="similar", backend="sklearn")


def launch(name, port):
    """The images beside the map, until it is ended; the command `fiftyone app launch` shows the images alone."""
    samples = fo.Panel(type="Samples", pinned=True)
    places = fo.Panel(type="Embeddings", state={"brainResult": "layout", "colorByField": "cluster"})
    parts = [fo.Space(children=[panel], active_child=panel.component_id) for panel in (samples, places)]
    spaces = fo.Space(children=parts, orientation="horizontal", sizes=[0.4, 0.6])
    fo.launch_app(fo.load_dataset(name), spaces=spaces, port=int(port), address="127.0.0.1", auto=False).wait(-1)


if __name__ == "__main__":
    {"prepare": prepare, "launch": launch}[sys.argv[1]](*sys.argv[2:])
