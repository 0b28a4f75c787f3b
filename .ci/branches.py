"""Fail unless at least 97 % of the branches are covered, by themselves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

totals = json.loads(Path(sys.argv[1]).read_text())["totals"]
covered = 100 * totals["covered_branches"] / totals["num_branches"]
sys.stdout.write(f"{covered:.2f} % of the branches are covered\n")
sys.exit(covered < 97)
