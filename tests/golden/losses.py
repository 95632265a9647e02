"""Makes losses.json: each loss of stdlib/losses and its gradient by the log-probs, in torch f64 with autograd.

    python tests/golden/losses.py > tests/golden/losses.json     # needs torch; with trl, also compares the two

Five sets of pairs: near the reference, like those of a training run, far out, at kinks, and likely responses. Objective `a`
takes a side on each pair, `b` has ties, `c` ties and rows without a label, `d` no label at all. With trl installed the
loss of every pair is also asserted to be that of TRL's functions, where there is one: `cpo_loss` on log-ratios or log-probs
(dpo, length-normalised, smoothed, hinge, ipo, simpo, amopo) and `odds_ratio_loss` (orpo).
"""

import json
import sys
import types

import torch
from torch.nn.functional import logsigmoid

torch.set_num_threads(1)
LABELS = {
    "a": [1, -1, 1, 1, -1, -1, 1, -1],
    "b": [1, 0, -1, 0, 1, -1, -1, 1],
    "c": [None, 1, 0, None, -1, 1, None, 0],
    "d": [None] * 8,
}
LENGTHS = {"chosen": [3, 5, 2, 8, 4, 6, 2, 7], "rejected": [4, 2, 2, 9, 3, 6, 12, 5]}
OPTIONS = [
    ("dpo", dict(beta=0.2)),
    ("dpo", dict(beta=0.1)),
    ("dpo_length_normalized", dict(beta=0.2)),
    ("dpo_length_normalized", dict(beta=2.5)),
    ("dpo_smoothed", dict(beta=0.2, smoothing=0.1)),
    ("dpo_smoothed", dict(beta=0.5, smoothing=0.0)),
    ("dpo_robust", dict(beta=0.2, smoothing=0.1)),
    ("dpo_robust", dict(beta=0.5, smoothing=0.4)),
    ("hinge", dict(beta=0.2)),
    ("hinge", dict(beta=1.0)),
    ("ipo", dict(beta=0.1)),
    ("ipo", dict(beta=0.4, average=False)),
    ("simpo", dict(beta=2.0, gamma=1.0)),
    ("simpo", dict(beta=0.1, gamma=0.5)),
    ("amopo", dict(beta=0.8)),
    ("orpo", dict(beta=0.1)),
    ("orpo", dict(beta=1.0)),
    ("sft", dict()),
]


def sets():
    """(chosen, rejected, chosen under the reference, rejected under the reference), sums over tokens."""
    generator = torch.Generator().manual_seed(7)
    draw = lambda low, high: (low + (high - low) * torch.rand(8, generator=generator, dtype=torch.float64)).tolist()
    base = draw(-40, -5), draw(-40, -5)
    nudge = lambda x, by: [v + d for v, d in zip(x, draw(-by, by))]
    yield "near", nudge(base[0], 1e-6), nudge(base[1], 1e-6), *base
    yield "usual", nudge(base[0], 4), nudge(base[1], 4), *base
    far = [1e4, -1e4, 3e3, -3e3, 800.0, -800.0, 1e6, -1e6]
    yield "far", [-2e6 + f for f in far], [-2e6] * 8, [-2e6] * 8, [-2e6] * 8
    # β s Δ = 1 exactly for β = 0.2 and 1
    yield "kinks", [-10.0, -15.0, -10.0, -10.0, -16.0, -14.0, -11.0, -15.0], [-10.0, -10.0, -15.0, -15.0, -15.0, -15.0,
                                                                         -10.0, -16.0], [-10.0] * 8, [-10.0] * 8
    yield "likely", [-10.0 ** -k for k in range(1, 9)], [-10.0 ** -k for k in range(8, 0, -1)], draw(-2, 0), draw(-2, 0)


def pair_loss(name, o, s, a, b, a0, b0, n, k):
    """The loss of one pair; s is +1, -1 or 0."""
    delta, mean_delta = (a - b) - (a0 - b0), (a - a0) / n - (b - b0) / k
    reference_free = a / n - b / k
    if name == "dpo":
        return -logsigmoid(o["beta"] * s * delta)
    if name == "dpo_length_normalized":
        return -logsigmoid(o["beta"] * s * mean_delta)
    if name in ("dpo_smoothed", "dpo_robust"):
        t, e = o["beta"] * s * delta, o["smoothing"]
        if name == "dpo_smoothed":
            return -(1 - e) * logsigmoid(t) - e * logsigmoid(-t)
        return (-(1 - e) * logsigmoid(t) + e * logsigmoid(-t)) / (1 - 2 * e)
    if name == "hinge":
        return torch.relu(1 - o["beta"] * s * delta)
    if name == "ipo":
        return (s * (mean_delta if o.get("average", True) else delta) - 1 / (2 * o["beta"])) ** 2
    if name == "simpo":
        return -logsigmoid(o["beta"] * s * reference_free - o["gamma"])
    if name == "amopo":
        return -logsigmoid(o["beta"] * s * reference_free)
    if name == "orpo":
        log_odds = lambda x: x - torch.log(-torch.expm1(x))
        likelihood = {1: a / n, -1: b / k, 0: 0.0}[s]
        return -likelihood - o["beta"] * logsigmoid(s * (log_odds(a / n) - log_odds(b / k)))
    raise ValueError(name)


def loss(name, o, signs, a, b, a0, b0, n, k):
    rows = [i for i, s in enumerate(signs) if s is not None]
    if name == "sft":
        preferred = [(a[i], n[i]) if signs[i] == 1 else (b[i], k[i]) for i in rows if signs[i] != 0]
        return -sum(p for p, _ in preferred) / sum(n for _, n in preferred) if preferred else 0 * a.sum()
    if not rows:
        return 0 * a.sum()
    return sum(pair_loss(name, o, signs[i], a[i], b[i], a0[i], b0[i], n[i], k[i]) for i in rows) / len(rows)


def like_trl(name, o, a, b, a0, b0, n, k):
    """TRL's value for each pair, as if all chosen responses were preferred; None where TRL has none."""
    from trl.experimental.cpo.cpo_trainer import CPOTrainer
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    accelerator = types.SimpleNamespace(device="cpu")
    of = dict(dpo="sigmoid", dpo_length_normalized="sigmoid", dpo_smoothed="sigmoid", hinge="hinge", ipo="ipo",
              simpo="simpo", amopo="sigmoid")
    if name == "orpo":
        fake = types.SimpleNamespace(beta=o["beta"], accelerator=accelerator)
        losses = ORPOTrainer.odds_ratio_loss(fake, a / n, b / k)[0]
        return -a / n - losses.double()
    if name not in of:
        return None
    fake = types.SimpleNamespace(alpha=0.0, loss_type=of[name], beta=o["beta"], label_smoothing=o.get("smoothing", 0.0),
                                 simpo_gamma=o.get("gamma"), accelerator=accelerator)
    if name in ("simpo", "amopo"):
        return CPOTrainer.cpo_loss(fake, a / n, b / k)[0]
    averaged = name == "dpo_length_normalized" or (name == "ipo" and o.get("average", True))
    n, k = (n, k) if averaged else (1, 1)
    return CPOTrainer.cpo_loss(fake, (a - a0) / n, (b - b0) / k)[0]


def main():
    try:
        import trl
    except ImportError:
        trl = None
    tensor = lambda x: torch.tensor(x, dtype=torch.float64)
    n, k = tensor(LENGTHS["chosen"]), tensor(LENGTHS["rejected"])
    cases, compared = [], 0
    for kind, *values in sets():
        for name, options in OPTIONS:
            if kind == "far" and name == "orpo":
                continue  # odds of e^-1000000
            found = {}
            for objective, signs in LABELS.items():
                a, b, a0, b0 = (tensor(v) for v in values)
                a.requires_grad_(), b.requires_grad_()
                value = loss(name, options, signs, a, b, a0, b0, n, k)
                value.backward()
                found[objective] = {"loss": value.item(), "chosen": (a.grad + 0.0).tolist(),
                                    "rejected": (torch.zeros(8) if b.grad is None else b.grad + 0.0).tolist()}
            a, b, a0, b0 = (tensor(v) for v in values)
            theirs = like_trl(name, options, a, b, a0, b0, n, k) if trl else None
            if theirs is not None:
                for i in range(8):
                    ours = pair_loss(name, options, 1, a[i], b[i], a0[i], b0[i], n[i], k[i])
                    # theirs of orpo is in f32
                    tolerance = 1e-3 if kind == "likely" and name == "orpo" else 1e-5 if name == "orpo" else 1e-12
                    assert torch.isclose(ours, theirs[i], rtol=tolerance, atol=tolerance), (kind, name, ours, theirs[i])
                    compared += 1
            cases.append({"set": kind, "loss": name, "options": options, "expected": found})
    pairs = {kind: dict(zip(["chosen", "rejected", "reference_chosen", "reference_rejected"], v)) for kind, *v in sets()}
    print(json.dumps({"torch": torch.__version__, "trl": trl and trl.__version__, "labels": LABELS, "lengths": LENGTHS,
                      "sets": pairs, "cases": cases}))
    print(f"{len(cases)} cases, {compared} pairs compared with TRL", file=sys.stderr)


if __name__ == "__main__":
    main()
