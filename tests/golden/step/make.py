"""One RACO step in torch f64, the dual face by face: what scripts/inspect_step.rhai writes, made without raco.

    python tests/golden/step/make.py         # needs torch, transformers, scipy, and the models of ../make.py

NAME.json has the rows (token ids), the arguments and the result of each case; NAME.safetensors are the weights of the
reference: those of ../NAME with noise, whose configuration and tokenizer it shares.
"""
import itertools
import json
import pathlib

import safetensors.torch
import scipy.optimize
import torch
import transformers
from torch.nn.functional import logsigmoid

HERE = pathlib.Path(__file__).parent
LABELS = {"quality": [1, -1, 1, 0], "brevity": [-1, 1, 1, None], "faithful": [1, None, -1, 1]}
COMMON = dict(c=0.4, clip=True, loss="dpo", beta=0.2, optimizer="sgd", lr=1e-3)
CASES = {
    "qwen3_tied": [
        dict(COMMON, objectives=["quality", "brevity"], weights=[0.8, 0.2]),
        dict(COMMON, objectives=["quality", "brevity", "faithful"], weights=[0.5, 0.2, 0.3], loss="dpo_length_normalized",
             beta=1.5, clip=False, c=0.7, optimizer="adamw"),
    ],
    "llama_untied": [
        dict(COMMON, objectives=["brevity", "quality"], weights=[0.4, 0.6], optimizer="adamw", beta=0.1),
        dict(COMMON, objectives=["faithful", "brevity", "quality"], weights=[0.2, 0.3, 0.5], c=0.9),
    ],
}


def rows(generator, vocab):
    ids = lambda n: torch.randint(4, vocab, (n,), generator=generator).tolist()
    lengths = [(5, 7, 4), (9, 3, 8), (2, 6, 6), (12, 1, 10)]
    return [dict(prompt_ids=ids(p), chosen_ids=ids(y), rejected_ids=ids(n),
                 objectives={name: signs[i] for name, signs in LABELS.items()})
            for i, (p, y, n) in enumerate(lengths)]


def log_probs(model, pairs):
    """Sums over the response tokens: chosen, rejected [B]."""
    def one(prompt, response):
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1:-1]
        return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum()
    return [torch.stack([one(p["prompt_ids"], p[side]) for p in pairs]) for side in ("chosen_ids", "rejected_ids")]


def losses(case, pairs, policy, reference):
    """{objective: [loss of each labelled pair]}, None where it has no label."""
    (a, b), (a0, b0) = policy, reference
    if case["loss"] == "dpo_length_normalized":
        n, k = (torch.tensor([float(len(p[side])) for p in pairs]) for side in ("chosen_ids", "rejected_ids"))
        a, a0, b, b0 = a / n, a0 / n, b / k, b0 / k
    margin = (a - b) - (a0 - b0)
    signs = {name: [p["objectives"][name] for p in pairs] for name in case["objectives"]}
    return {name: [None if s is None else -logsigmoid(case["beta"] * s * margin[i]) for i, s in enumerate(column)]
            for name, column in signs.items()}


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values)


def dual(h, w, c):
    """argmin over the simplex of bᵀp + s√(pᵀHp): convex; its faces by enumeration, in each the stationary point."""
    m, b, s = len(w), h @ w, c * (w @ h @ w).sqrt()
    slopes = lambda p: b + s * (h @ p) / (p @ h @ p).sqrt()
    best = None
    for face in (f for n in range(1, m + 1) for f in itertools.combinations(range(m), n)):
        def place(x):
            p = torch.zeros(m)
            p[list(face)] = torch.tensor([*x, 1.0 - sum(x)])
            return p
        level = lambda x: (lambda g: [float(g[i] - g[face[-1]]) for i in face[:-1]])(slopes(place(x)))
        start = [1 / len(face)] * (len(face) - 1)
        p = place(scipy.optimize.root(level, start, tol=1e-15).x if start else [])
        if (p >= 0).all():
            value = float(b @ p + s * (p @ h @ p).sqrt())
            best = min(best or (value, p), (value, p), key=lambda of: of[0])
    value, p = best
    gap = value - float(slopes(p).min())  # by how much another face could be better
    assert abs(gap) <= 1e-11 * float(b.abs().max()), gap
    return p, s


def step(model, reference_log_probs, pairs, case):
    w = torch.tensor(case["weights"])
    policy = log_probs(model, pairs)
    each = losses(case, pairs, policy, reference_log_probs)
    means = {name: mean(values) for name, values in each.items()}
    names, parameters = zip(*model.named_parameters())
    gradients = [torch.autograd.grad(value, parameters, retain_graph=True) for value in means.values()]
    flat = torch.stack([torch.cat([g.flatten() for g in row]) for row in gradients])
    h = flat @ flat.T
    p, s = dual(h, w, case["c"])
    clipped = torch.minimum(p, w) if case["clip"] else p
    length = (clipped @ h @ clipped).sqrt()
    alpha = w + s * clipped / length if length > 0 else w
    update = [sum(a * row[i] for a, row in zip(alpha, gradients)) for i in range(len(parameters))]
    kind = dict(sgd=torch.optim.SGD, adamw=lambda p, lr: torch.optim.AdamW(p, lr, (0.9, 0.999), 1e-8, weight_decay=0.0))
    optimizer = kind[case["optimizer"]](parameters, lr=case["lr"])
    for parameter, g in zip(parameters, update):
        parameter.grad = g.clone()
    optimizer.step()
    after = losses(case, pairs, log_probs(model, pairs), reference_log_probs)
    sides = lambda pair: dict(zip(("chosen", "rejected"), (x.tolist() for x in pair)))
    named = lambda values: {name: v.item() for name, v in zip(case["objectives"], values)}
    (a, b), (a0, b0) = policy, reference_log_probs
    after = named(mean(values).detach() for values in after.values())
    return {
        "log_probs": {"policy": sides(policy), "reference": sides(reference_log_probs)},
        "margins": ((a - b) - (a0 - b0)).tolist(),
        "losses_per_pair": {name: [v if v is None else v.item() for v in values] for name, values in each.items()},
        "losses": named(means.values()),
        "grad_norms": named(h.diagonal().sqrt()),
        "gramian": h.tolist(),
        "p": named(p), "p_clip": named(clipped), "alpha": named(alpha),
        "update_norm": float(torch.cat([u.flatten() for u in update]).norm()),
        "update_norms": {name: float(u.norm()) for name, u in zip(names, update)},
        "losses_after": after,
    }


def main():
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    load = lambda name: transformers.AutoModelForCausalLM.from_pretrained(HERE.parent / name, dtype=torch.float64).eval()
    for seed, (name, cases) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(seed)
        reference = load(name)
        for p in reference.parameters():
            noise = torch.randn(p.shape, generator=generator) * p.detach().std()
            p.data = (p.data + 0.05 * noise).float().double()
        state = {k: v.float().contiguous() for k, v in dict(reference.named_parameters()).items()}
        safetensors.torch.save_file(state, HERE / f"{name}.safetensors", metadata={"format": "pt"})
        pairs = rows(generator, reference.config.vocab_size)
        with torch.no_grad():
            frozen = log_probs(reference, pairs)
        results = [{"arguments": case, "expected": step(load(name), frozen, pairs, case)} for case in cases]
        for result in results:
            print(name, {k: result["expected"][k] for k in ("margins", "losses", "p", "alpha", "losses_after")})
        versions = {m.__name__: m.__version__ for m in (torch, transformers, scipy)}
        text = json.dumps({"versions": versions, "rows": pairs, "cases": results})
        (HERE / f"{name}.safetensors").chmod(0o644)
        (HERE / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
