"""A layout of Spotlight, a table beside the map of places that are known: `studio_spotlight.py FILE`.

Its similarity map would run UMAP whenever the page is opened.
"""

import sys
from pathlib import Path

from renumics.spotlight import layout

places = layout.scatterplot(x_column="x", y_column="y", color_by_column="cluster")
map_and_table = layout.split(
    layout.tab(places, weight=60), layout.tab(layout.table(), weight=40), orientation="horizontal", weight=80
)
shown = layout.layout(map_and_table, layout.tab(layout.inspector(), weight=20))
Path(sys.argv[1]).write_text(shown.model_dump_json(by_alias=True))
