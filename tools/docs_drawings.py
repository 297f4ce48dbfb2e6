"""Drawings of the documentation: the data flow, and the scan orders as the scan functions give them.

python tools/docs_drawings.py        # docs/images/data_flow.svg, docs/images/scan_orders.svg
"""

import sys
from collections.abc import Callable
from pathlib import Path

from drawings.data_flow import data_flow
from drawings.scan_orders import scan_orders

IMAGES = Path(__file__).parents[1] / "docs" / "images"
DRAWINGS: dict[str, Callable[[], str]] = {"data_flow.svg": data_flow, "scan_orders.svg": scan_orders}


def main() -> int:
    """Draw and write all of them."""
    for name, draw in DRAWINGS.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8")
        print(IMAGES / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
