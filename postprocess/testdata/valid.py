"""Says what shapely makes of polygons.

    python valid.py          writes valid.json: polygons, valid and not, and shapely's verdict on each
    python valid.py judge    reads GeoJSON, one geometry a line, and writes shapely's verdicts

Needs shapely 2. valid.json is committed, so tests need it only to ask about new polygons.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import shapely

SQUARE = [[0, 0], [8, 0], [8, 8], [0, 8], [0, 0]]


def hole(x: int, y: int, side: int) -> list[list[int]]:
    return [[x, y], [x, y + side], [x + side, y + side], [x + side, y], [x, y]]


def outline(x: int, y: int, side: int) -> list[list[int]]:
    return hole(x, y, side)[::-1]


POLYGONS = {
    "nothing": [],
    "a square": [[SQUARE]],
    "a square with a hole": [[SQUARE, hole(2, 2, 3)]],
    "a bow tie": [[[[0, 0], [4, 4], [4, 0], [0, 5], [0, 0]]]],
    "an outline that crosses itself": [[[[0, 4], [2, 0], [4, 3], [1, 2], [0, 4]]]],
    "a ring that crosses itself": [[[[0, 0], [6, 0], [6, 6], [3, -1], [0, 6], [0, 0]]]],
    "a spike": [[[[0, 0], [4, 0], [8, 0], [4, 0], [4, 4], [0, 0]]]],
    "a ring without area": [[[[0, 0], [4, 4], [8, 8], [0, 0]]]],
    "a hole outside": [[SQUARE, hole(10, 10, 2)]],
    "a hole across the outline": [[SQUARE, hole(6, 6, 4)]],
    "a hole along the outline": [[SQUARE, hole(0, 2, 3)]],
    "a hole that touches the outline in a point": [[SQUARE, [[0, 0], [2, 5], [5, 2], [0, 0]]]],
    "a hole that touches the outline in two points": [[SQUARE, [[0, 0], [3, 5], [8, 8], [5, 3], [0, 0]]]],
    "two holes that touch": [[SQUARE, hole(1, 1, 2), hole(3, 3, 2)]],
    "two holes that overlap": [[SQUARE, hole(1, 1, 3), hole(3, 3, 2)]],
    "two holes with a common edge": [[SQUARE, hole(1, 1, 2), hole(3, 1, 2)]],
    "a hole in a hole": [[SQUARE, hole(1, 1, 6), hole(3, 3, 2)]],
    "two holes that cut off what is between": [
        [SQUARE, [[2, 2], [1, 4], [2, 6], [2, 4], [2, 2]], [[2, 2], [3, 4], [2, 6], [6, 4], [2, 2]]]
    ],
    "four holes in a circle": [[SQUARE, hole(3, 1, 2), hole(1, 3, 2), hole(3, 5, 2), hole(5, 3, 2)]],
    "three holes in a row": [[SQUARE, hole(1, 1, 2), hole(3, 3, 2), hole(5, 5, 2)]],
    "two squares": [[SQUARE], [outline(10, 0, 3)]],
    "two squares that touch": [[SQUARE], [outline(8, 8, 3)]],
    "two squares that touch in two points": [
        [[[0, 0], [4, 0], [4, 2], [3, 3], [4, 4], [0, 4], [0, 0]]],
        [[[4, 2], [8, 0], [8, 4], [4, 4], [6, 3], [4, 2]]],
    ],
    "two squares with a common edge": [[SQUARE], [[[8, 0], [12, 0], [12, 8], [8, 8], [8, 0]]]],
    "two squares that overlap": [[SQUARE], [outline(6, 6, 4)]],
    "a square in a square": [[SQUARE], [outline(2, 2, 3)]],
    "a square in a hole": [[SQUARE, hole(1, 1, 6)], [outline(3, 3, 2)]],
    "a square that fills a hole": [[SQUARE, hole(2, 2, 3)], [outline(2, 2, 3)]],
    "a square that touches its hole": [[SQUARE, hole(1, 1, 6)], [[[1, 1], [5, 2], [2, 5], [1, 1]]]],
    "rings that cross in a point of both": [
        [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]],
        [[[2, -2], [6, -2], [4, 0], [2, 2], [2, -2]]],
    ],
}


def main() -> None:
    if sys.argv[1:] == ["judge"]:
        for line in sys.stdin:
            print(shapely.is_valid_reason(shapely.from_geojson(line)), flush=True)
        return
    verdicts = []
    for name, polygons in POLYGONS.items():
        geometry = {"type": "MultiPolygon", "coordinates": polygons}
        reason = shapely.is_valid_reason(shapely.from_geojson(json.dumps(geometry)))
        valid = reason == "Valid Geometry"
        verdicts.append({"name": name, "geometry": geometry, "valid": valid, "reason": reason})
    text = ",\n".join(json.dumps(verdict) for verdict in verdicts)
    (Path(__file__).parent / "valid.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
