"""A layout of Spotlight, a table beside the map of places that are known: `studio_spotlight.py FILE`.

Its similarity map would run UMAP whenever the page is opened.
"""

import sys
from pathlib import Path

from renumics.spotlight import layout

places = layout.scatterplot(x_column="x", y_column="y", color_by_column="cluster")
shown = layout.layout(
    layout.split(layout.tab(places), layout.tab(layout.table()), orientation="horizontal"),
    layout.tab(layout.inspector(), weight=40),
)
Path(sys.argv[1]).write_text(shown.model_dump_json(by_alias=True))
