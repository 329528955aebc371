"""A PixPlot of images with given embeddings instead of Inception's: `studio_pixplot.py TABLE FILES FOLDER`.

PixPlot fetches the weights of its network from another machine.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pixplot import pixplot

table, files, folder = sys.argv[1:]
embeddings = np.stack(pq.read_table(table)["embedding"].to_numpy())
embeddings = np.pad(embeddings, ((0, 0), (0, max(0, 100 - embeddings.shape[1]))))  # It reduces them to 100.
pixplot.get_inception_vectors = lambda **options: embeddings
os.chdir(Path(folder).parent)
pixplot.process_images(**pixplot.config | {"images": files, "out_dir": Path(folder).name, "copy_web_only": False})
