"""One sample at a time, in a world that changes: `ex.begin` and `ex.update` without epochs, batches or a loop of ours.

    python docs/gallery/online.py            # 10,000 samples, four changes
    python docs/gallery/online.py --small    # 1,200 samples, one change; seconds

The class of a sample of ten numbers is the sign of a projection, and after every so many samples one at right angles to
it decides. Each sample is first answered, then learnt from, and then forgotten: the share of right answers before
learning is the prequential accuracy. `update` tells the answer that it began with, so that nothing is computed twice.
Beside it stands the same network, which stops learning at the first change.

Prints the prequential accuracy of both over the second half of every stretch between changes.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax

import energax as ex


def draw_stream(changes: int, length: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples, shape `(count, 10)`, and classes 0 and 1, in the order in which they come."""
    x = draw.normal(size=((changes + 1) * length, 10)).astype(np.float32)
    directions = np.linalg.qr(draw.normal(size=(10, changes + 1)))[0].T
    classes = [part @ way > 0 for part, way in zip(np.split(x, changes + 1), directions, strict=True)]
    return x, np.concatenate(classes).astype(int)


def main(small: bool = False) -> dict[str, list[float]]:
    """Answer and learn, sample by sample; print, and return by name, accuracies of every stretch."""
    changes, length = (1, 600) if small else (4, 2000)
    x, y = draw_stream(changes, length, np.random.default_rng(0))
    learner = ex.Learner(
        ex.networks.mlp([10, 32, 2], jnp.tanh, key=jax.random.key(0)),
        ex.PredictiveCoding(ex.CrossEntropy()),
        ex.GradientFlow(coordinates=ex.ErrorCoordinates()),
        ex.Contrastive(ex.rules.nudge(1e-2)),
        optax.adam(5e-3),
    )
    progress = ex.begin(learner)
    frozen = progress.as_predictor()
    right = []
    for count, (sample, label) in enumerate(zip(x, y, strict=True)):
        batch = ex.Batch(sample[None], jax.nn.one_hot(np.array([label]), 2))
        progress, info = ex.update(learner, progress, batch)
        right.append(int(jnp.argmax(info.output[0])) == label)
        if count == length - 1:
            frozen = progress.as_predictor()
    answers = np.argmax(frozen.predict(x), axis=1) == y
    found = {"goes on learning": [], "stopped at the first change": []}
    for name, scores in zip(found, (np.array(right), answers), strict=True):
        for part in np.split(scores, changes + 1):
            found[name].append(float(np.mean(part[length // 2 :])))
        print(f"{name:28s} {'  '.join(f'{score:.3f}' for score in found[name])}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one change only")
    main(parser.parse_args().small)
