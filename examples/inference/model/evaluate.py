"""Measures an ONNX file of `glyph` with onnxruntime on fonts it never saw. Used by train.py (report) and by check.py (floor)."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnxruntime

import draw
import fonts

AUGMENTED_COUNT = 4000
AUGMENTED_SEED = 20_002


@dataclass(frozen=True)
class Score:
    """Right answers of one set, and the pairs mixed up most often."""

    right: int
    total: int
    confused: list[tuple[str, str, int]]

    @property
    def accuracy(self) -> float:
        return self.right / self.total

    def __str__(self) -> str:
        return f"{self.right}/{self.total} ({100 * self.accuracy:.1f} %)"


def _score(session: onnxruntime.InferenceSession, pictures: np.ndarray, classes: np.ndarray) -> Score:
    x = draw.standardise(pictures)[:, None, :, :]
    name = session.get_inputs()[0].name
    # The model's batch is fixed at 1: that is what it is served with.
    logits = np.concatenate([session.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))])
    answers = logits.argmax(axis=1)
    pairs = Counter((draw.LABELS[t], draw.LABELS[a]) for t, a in zip(classes, answers) if t != a)
    confused = [(t, a, n) for (t, a), n in pairs.most_common(12)]
    return Score(int((answers == classes).sum()), len(classes), confused)


def measure(model: str) -> tuple[Score, Score]:
    """(augmented, clean) on the families of fonts.CHECK."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    augmented = _score(session, *draw.augmented_set(fonts.CHECK, AUGMENTED_COUNT, AUGMENTED_SEED))
    return augmented, _score(session, *draw.clean_set(fonts.CHECK))
