"""Every benchmark, one after the other; those on real data take $SURGERY_DATA.

python -m bench.all
"""

from __future__ import annotations

import os
import subprocess
import sys

ANYWHERE = ("startup", "serve")
ON_DATA = ("cache", "hymenoptera", "views", "peers", "camvid", "precision", "studies", "studies_models")


def main() -> None:
    """Run them in processes of their own."""
    names = [*ANYWHERE, *(ON_DATA if os.environ.get("SURGERY_DATA") else ())]
    if len(names) == len(ANYWHERE):
        print("SURGERY_DATA is not set: left out", ", ".join(ON_DATA))
    for name in names:
        subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True)


if __name__ == "__main__":
    main()
