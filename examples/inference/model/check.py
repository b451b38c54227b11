"""Measures a model and fails below the floors. Started by ./check."""

import sys
import time
from pathlib import Path

import evaluate
import fonts

# A little below REPORT.md: another FreeType draws a few pictures differently, a worse model loses far more.
FLOOR_AUGMENTED = 0.98
FLOOR_CLEAN = 0.985


def main() -> int:
    if not Path(sys.argv[1]).is_file():
        raise SystemExit(f"no model at {sys.argv[1]}")
    fonts.require(fonts.CHECK)
    began = time.monotonic()
    augmented, clean = evaluate.measure(sys.argv[1])
    worse = False
    for name, score, floor in (("augmented", augmented, FLOOR_AUGMENTED), ("clean", clean, FLOOR_CLEAN)):
        below = score.accuracy < floor
        worse |= below
        verdict = f"BELOW THE FLOOR of {100 * floor:.1f} %" if below else f"floor {100 * floor:.1f} %"
        print(f"{name}: {score} right on fonts never trained on; {verdict}")
        if below:
            print("  mixed up: " + ", ".join(f"{t} as {a} ({n}x)" for t, a, n in score.confused))
    print(f"took {time.monotonic() - began:.0f} s")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
