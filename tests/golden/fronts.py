"""Makes fronts.json: what pymoo, scipy and arch compute of points, and of values over seeds.

    python tests/golden/fronts.py > tests/golden/fronts.json

Made with the versions that the file names. pymoo minimises: it is given the negative of each point and of the reference.
"""

import json

import arch
import numpy as np
import pymoo
import scipy
from arch.bootstrap import IIDBootstrap
from pymoo.indicators.epsilon import Epsilon
from pymoo.indicators.hv import HV
from pymoo.indicators.igd import IGD
from pymoo.indicators.igd_plus import IGDPlus
from pymoo.indicators.spacing import SpacingIndicator
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting
from scipy import stats


def sphere(rng, n, m):
    """Points near a sphere: most are not dominated."""
    x = np.abs(rng.normal(size=(n, m)))
    return x / np.linalg.norm(x, axis=1, keepdims=True) * rng.uniform(0.9, 1.0, size=(n, 1))


def case(points, front, reference):
    points, front = np.round(points, 4), np.round(front, 4)
    best = NonDominatedSorting().do(-points, only_non_dominated_front=True)
    return {
        "points": points.tolist(),
        "front": front.tolist(),
        "reference": list(reference),
        "pareto": sorted(int(i) for i in best),
        "hypervolume": float(HV(ref_point=-np.array(reference))(-points)),
        "igd": float(IGD(-front, zero_to_one=False)(-points)),
        "igd_plus": float(IGDPlus(-front, zero_to_one=False)(-points)),
        "additive_epsilon": float(Epsilon(-front, zero_to_one=False)(-points)),
        "spacing": float(SpacingIndicator(zero_to_one=False)(-points)),
    }


rng = np.random.default_rng(5)
cases = []
for m, n in [(2, 5), (2, 40), (3, 12), (3, 60), (4, 25), (5, 20)]:
    cases.append(case(sphere(rng, n, m), sphere(rng, 10, m), [0.0] * m))
    # points below the reference among them, ties by rounding, equal points
    points = np.round(rng.uniform(size=(n, m)), 1)
    points[-1] = points[0]
    cases.append(case(points, sphere(rng, 7, m), [0.2] * m))

seeds = []
for n in [2, 3, 5, 8, 12]:
    a = np.round(rng.normal(0.75, 0.02, size=n), 4)
    b = np.round(a - rng.normal(0.01, 0.02, size=n), 4 if n != 8 else 2)
    test = stats.permutation_test(
        (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    interval = stats.ttest_1samp(a, 0.0).confidence_interval(0.9)
    seeds.append({"a": a.tolist(), "b": b.tolist(), "p": float(test.pvalue), "t": [float(x) for x in interval]})

values = np.round(np.exp(rng.normal(size=12)), 4)
ends = IIDBootstrap(values, seed=1).conf_int(
    np.mean, 200_000, method="studentized", size=0.9, std_err_func=lambda mu, x: np.std(x, ddof=1) / len(x) ** 0.5
)
weights = [0.1, 0.3, 0.5, 0.5, 0.7, 0.9]
scores = [0.34, 0.33, 0.7, 0.6, 0.6, 0.9]
print(json.dumps({
    "versions": {"pymoo": pymoo.__version__, "scipy": scipy.__version__, "arch": arch.__version__},
    "cases": cases,
    "seeds": seeds,
    "t_quantile": [
        [p, nu, float(stats.t.ppf(p, nu))]
        for nu in [1, 2, 3, 4.5, 9, 30, 1000] for p in [0.5, 0.6, 0.9, 0.975, 0.9995, 0.05, 1e-6]
    ],
    "bootstrap_t": {"values": values.tolist(), "level": 0.9, "interval": ends[:, 0].tolist()},
    "wilson": [
        [k, n, *(float(x) for x in stats.binomtest(k, n).proportion_ci(0.95, method="wilson"))]
        for k, n in [(0, 1), (1, 1), (3, 10), (50, 64), (256, 256)]
    ],
    "kendall": {"weights": weights, "scores": scores, "tau": float(stats.kendalltau(weights, scores).statistic)},
}))
