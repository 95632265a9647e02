"""Writes aggregators.json: what TorchJD 0.18 answers on well-conditioned rows, in float64, over several calls.

    pip install "torchjd[full]==0.18.*" torch numpy
    python tests/golden/aggregators.py

Cases on which TorchJD is known to be wrong are left out here: see `left_out` at the end.
"""

import importlib.metadata
import json
import pathlib
import warnings

import torch
from torchjd import aggregation as A

torch.set_default_dtype(torch.float64)
warnings.filterwarnings("ignore")
CALLS = 3


def rows(seed, m, n, scale=1.0):
    return scale * torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def cases():
    """Generic rows; conflicting rows with a common descent; opposed, equal and zero rows; ties of sign."""
    found = {
        "one": [rows(1, 1, 4)],
        "two": [rows(2 + k, 2, 5) for k in range(CALLS)],
        "three": [rows(10 + k, 3, 6) for k in range(CALLS)],
        "five": [rows(20 + k, 5, 8) for k in range(CALLS)],
        "long": [rows(30 + k, 4, 7, 20.0) for k in range(CALLS)],
    }
    star = torch.eye(4, 6) - 0.24 + 0.05 * rows(40, 4, 6)
    found["conflicting"] = [star, star.flip(0), star + 0.1 * rows(41, 4, 6)]
    zero = rows(50, 3, 5)
    zero[1] = 0.0
    found["zero row"] = [zero] * CALLS
    found["opposed"] = [torch.tensor([[1.0, 2.0, -1.0], [-1.0, -2.0, 1.0]])] * CALLS
    found["signs"] = [torch.tensor([[1.0, -1.0, 0.0, 2.0], [-1.0, -2.0, 0.0, 0.5], [0.5, 3.0, 0.0, -2.5]])] * CALLS
    return found


class Draws:
    """Hands out given draws in place of torch's global generator."""

    def __init__(self, orders=(), uniform=(), normal=()):
        self.orders, self.uniform, self.normal = iter(orders), iter(uniform), iter(normal)

    def __enter__(self):
        self.kept = torch.randperm, torch.rand, torch.randn
        torch.randperm = lambda *a, **k: torch.tensor(next(self.orders))
        torch.rand = lambda *a, **k: torch.tensor(next(self.uniform))
        torch.randn = lambda *a, **k: torch.tensor(next(self.normal))

    def __exit__(self, *error):
        torch.randperm, torch.rand, torch.randn = self.kept


def weights_of(m):
    w = torch.arange(1.0, m + 1.0)
    return w / w.sum()


def orders_of(m):
    """A permutation of 0 … m-1 a row, none ascending."""
    return [[(3 * k + i + 1) % m if m % 3 else (m - 1 - k + i) % m for k in range(m)] for i in range(m)]


def methods(m, w):
    """name of ours → (its options, TorchJD's aggregator, the draws of a call)."""
    orders = orders_of(m)
    # of the others in ascending order, where ours gives the rows themselves
    others = [[[j for j in range(m) if j != i].index(j) for j in order if j != i] for i, order in enumerate(orders)]
    z = [0.3 * i - 0.5 for i in range(m)]
    leak = [0.5 / (i + 1) for i in range(m)]
    none = lambda n: Draws()
    table = {
        "mean": ("mean", {}, A.Mean(), none),
        "sum": ("sum", {}, A.Sum(), none),
        "linear": ("linear", {}, A.Constant(w), none),
        "constant": ("constant", {"alpha": z}, A.Constant(torch.tensor(z)), none),
        "mgda": ("mgda", {}, A.MGDA(epsilon=1e-12, max_iters=200000), none),
        "upgrad": ("upgrad", {}, A.UPGrad(w), none),
        "dual_proj": ("dual_proj", {}, A.DualProj(w), none),
        "pcgrad": ("pcgrad", {"order": orders}, A.PCGrad(), lambda n: Draws(orders=orders)),
        "gradvac": ("gradvac", {"order": orders}, A.GradVac(), lambda n: Draws(orders=others)),
        "nash_mtl": ("nash_mtl", {"max_norm": 1.0}, A.NashMTL(n_tasks=m), none),
        "fair_grad_1": ("fair_grad", {"a": 1.0}, A.FairGrad(1.0), none),
        "fair_grad_2": ("fair_grad", {"a": 2.0}, A.FairGrad(2.0), none),
        "imtl_g": ("imtl_g", {}, A.IMTLG(), none),
        "aligned_mtl_min": ("aligned_mtl", {"scale_mode": "min"}, A.AlignedMTL(w, scale_mode="min"), none),
        "aligned_mtl_median": ("aligned_mtl", {"scale_mode": "median"}, A.AlignedMTL(w, scale_mode="median"), none),
        "aligned_mtl_rmse": ("aligned_mtl", {"scale_mode": "rmse"}, A.AlignedMTL(w, scale_mode="rmse"), none),
        "config": ("config", {}, A.ConFIG(w), none),
        "random": ("random", {"draws": z}, A.Random(), lambda n: Draws(normal=[z])),
        "excess_mtl": ("excess_mtl", {}, A.ExcessMTL(), none),
        "excess_mtl_warm": ("excess_mtl", {"eta": 0.3, "warmup_calls": 2}, A.ExcessMTL(0.3, 2), none),
        "sdmgrad": ("sdmgrad", {}, A.GramianWeightedAggregator(A.SDMGradWeighting(pref_vector=w)), none),
        "modo": ("modo", {}, A.GramianWeightedAggregator(A.MoDoWeighting()), none),
        "cr_mogm_upgrad": (
            "cr_mogm",
            {"method": "upgrad"},
            A.GramianWeightedAggregator(A.CRMOGMWeighting(A.UPGradWeighting(w))),
            none,
        ),
        "cr_mogm_modo": (
            "cr_mogm",
            {"method": "modo", "a": 0.5, "initial": z},
            A.GramianWeightedAggregator(
                A.CRMOGMWeighting(A.MoDoWeighting(), alpha=0.5, initial_weights=torch.tensor(z))
            ),
            none,
        ),
        "pcd": ("pcd", {}, A.PCD(), none),
        "pcd_taus": (
            "pcd",
            {"tau": [0.3 / (j + 1) for j in range(m - 1)], "ema": 0.5},
            A.PCD(torch.tensor([0.3 / (j + 1) for j in range(m - 1)]), beta=0.5),
            none,
        ),
    }
    for name, leaks in [("graddrop", None), ("graddrop_leak", leak)]:
        uniform = lambda n: [(0.37 * k + 0.11) % 1.0 for k in range(n)]
        table[name] = (
            "graddrop",
            {"draws": uniform, "leak": leaks},
            A.GradDrop(leak=None if leaks is None else torch.tensor(leaks)),
            lambda n: Draws(uniform=[uniform(n)]),
        )
    if m >= 3:
        table["trimmed_mean"] = ("trimmed_mean", {"trim": 1}, A.TrimmedMean(1), none)
        table["krum"] = ("krum", {"byzantine": 0, "selected": 1}, A.Krum(0), none)
    if m >= 4:
        table["krum_multi"] = ("krum", {"byzantine": 1, "selected": 2}, A.Krum(1, 2), none)
    return table


# Where TorchJD 0.18 gives no answer, or another than the definition
left_out = {
    ("nash_mtl", "one"): "raises for one row",
    ("nash_mtl", "zero row"): "answers alpha = 1, though 0 is in the hull: there is no solution",
    ("nash_mtl", "opposed"): "the same",
    ("nash_mtl", "long"): "stops up to 2 % off, from its warm start",
    ("fair_grad_1", "opposed"): "no solution: 0 is in the hull of the rows",
    ("fair_grad_2", "opposed"): "the same",
    ("krum", "three"): "three rows always tie",
    ("krum", "zero row"): "the same",
    ("krum", "signs"): "the same",
}


def main():
    found = []
    for case, matrices in cases().items():
        m, n = matrices[0].shape
        w = weights_of(m)
        for name, (method, options, aggregator, draws) in methods(m, w).items():
            if (name, case) in left_out:
                continue
            options = {k: v(n) if callable(v) else v for k, v in options.items()}
            calls = []
            for matrix in matrices:
                with draws(n):
                    calls.append([float(x) for x in aggregator(matrix)])
            found.append({"input": case, "key": name, "method": method, "options": options, "directions": calls})
    versions = {p: importlib.metadata.version(p) for p in ["torchjd", "torch", "numpy"]}
    inputs = {k: {"w": weights_of(len(v[0])).tolist(), "calls": [x.tolist() for x in v]} for k, v in cases().items()}
    path = pathlib.Path(__file__).with_name("aggregators.json")
    path.write_text(json.dumps({"versions": versions, "inputs": inputs, "answers": found}) + "\n")
    print(path, path.stat().st_size, "bytes,", len(found), "answers")


if __name__ == "__main__":
    main()
