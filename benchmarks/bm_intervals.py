"""Coverage of the intervals of an experiment's differences, next to that of other methods.

Each row is a number of seeds and a choice of standard deviations, from which experiments with a
known effect are simulated. It takes some minutes.
"""

import argparse
from typing import Dict, Tuple

import numpy as np
from tabulate import tabulate

from libra_d2.experiments import student_t
from libra_d2.experiments.statistics import estimate

NUM_IMAGES, NUM_DRAWS, EFFECT = 100, 200, 1.0
# Standard deviations of seeds, of images, and of both together: those of seeds and images.
SPREADS = {
    "seeds": (0.5, 0, 0),
    "seeds, both": (0.5, 0, 5),
    "both": (0, 0, 5),
    "seeds, images": (0.5, 5, 0),
    "seeds, images, both": (0.5, 5, 5),
    "mostly images": (0.2, 6, 2),
    "seeds, fewer images": (0.5, 2.5, 2),
}


def simulate(rng, num_seeds: int, seeds: float, images: float, both: float):
    """Return the differences (S,) of the seeds, and those on draws of images (B, S)."""
    by_image = (
        EFFECT
        + seeds * rng.normal(size=(num_seeds, 1))
        + images * rng.normal(size=NUM_IMAGES)
        + both * rng.normal(size=(num_seeds, NUM_IMAGES))
    )
    weights = rng.multinomial(NUM_IMAGES, np.full(NUM_IMAGES, 1 / NUM_IMAGES), size=NUM_DRAWS)
    return by_image.mean(1), weights @ by_image.T / NUM_IMAGES


def intervals(rng, differences, drawn) -> Dict[str, Tuple[float, float]]:
    """Return the lower and upper ends by method."""
    n, mean = len(differences), differences.mean()
    own = estimate(differences, drawn, NUM_IMAGES - 1)
    of_mean = own._replace(image_variance=float(drawn.mean(1).var(ddof=1)))
    half = {
        "libra_d2": own.half_width(),
        "variance of the mean": of_mean.half_width(),
        "seeds alone": student_t.quantile(0.975, n - 1) * (own.seed_variance / n) ** 0.5,
        "images alone": 1.96 * of_mean.image_variance**0.5,
    }
    chosen = rng.integers(0, n, (NUM_DRAWS, n))
    low, high = np.quantile(np.take_along_axis(drawn, chosen, 1).mean(1), [0.025, 0.975])
    ends = {name: (mean - h, mean + h) for name, h in half.items()}
    return {**ends, "percentiles": (float(low), float(high))}


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--experiments", type=int, default=2000, help="for each row")
    experiments = p.parse_args().experiments
    rng = np.random.default_rng(0)
    rows = []
    for num_seeds in (2, 3, 5, 10):
        for name, spread in SPREADS.items():
            covered: Dict[str, int] = {}
            for _ in range(experiments):
                found = intervals(rng, *simulate(rng, num_seeds, *spread))
                for method, (low, high) in found.items():
                    covered[method] = covered.get(method, 0) + (low <= EFFECT <= high)
            shares = {method: 100 * n / experiments for method, n in covered.items()}
            rows.append({"seeds": num_seeds, "varies": name, **shares})
    print(f"Coverage in percent of 95 % intervals, {experiments} experiments a row")
    print(tabulate(rows, headers="keys", floatfmt=".1f"))


if __name__ == "__main__":
    main()
