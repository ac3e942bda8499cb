"""Runs every benchmark and prints one table.

.venv/bin/python benchmarks [--rounds 7]    # needs Go, gcc, libjpeg's header and a package index
"""

import masks
import phrases
import pictures
import timing

if __name__ == "__main__":
    timing.main(
        __doc__, lambda rounds: [row for part in (pictures, phrases, masks) for row in part.rows(rounds)]
    )
