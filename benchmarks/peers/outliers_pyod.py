"""pyod's parameter-free detectors: `outliers_pyod.py FEATURES.npz SCORES.npz`.

Writes ECOD and COPOD scores of the rows of each array (higher is more unusual), named "ECOD 0", "COPOD 0", "ECOD 1" …,
and prints a line of JSON.
"""

import json
import sys
from importlib.metadata import version

import numpy as np
from pyod.models.copod import COPOD
from pyod.models.ecod import ECOD

scores = {}
with np.load(sys.argv[1]) as arrays:
    for place in range(len(arrays.files)):
        features = arrays[f"arr_{place}"].astype(np.float64)
        for name, detector in (("ECOD", ECOD()), ("COPOD", COPOD())):
            scores[f"{name} {place}"] = detector.fit(features).decision_scores_
np.savez(sys.argv[2], **scores)
print(json.dumps({"version": version("pyod")}))
