"""`python -m imatlas`: the same as the `imatlas` command."""

import sys

from imatlas.cli import main

sys.exit(main())
