"""Issues found by cleanvision: `flags_cleanvision.py FOLDER`; prints {file name: [issues]} as JSON."""

import contextlib
import io
import json
import sys
from importlib.metadata import version
from pathlib import Path

from cleanvision import Imagelab

ISSUES = ("blurry", "dark", "light", "low_information", "odd_size", "odd_aspect_ratio", "grayscale")

with contextlib.redirect_stdout(io.StringIO()):
    lab = Imagelab(data_path=sys.argv[1])
    lab.find_issues({issue: {} for issue in ISSUES}, n_jobs=1, verbose=False)
found = {
    Path(name).name: [issue for issue in ISSUES if row[f"is_{issue}_issue"]] for name, row in lab.issues.iterrows()
}
print(json.dumps({"version": version("cleanvision"), "flags": found}))
