"""Makes optim.json: what torch.optim and the schedules of transformers compute.

    python tests/golden/optim.py > tests/golden/optim.json

Made with torch 2.x on the CPU; two parameters of 3 and 4 scalars, gradients g = sin(k + 3i) * (1 + i / 2)
with k the step and i the scalar, 20 steps.
"""

import json
import math

import torch
import transformers

torch.set_num_threads(1)
START = [0.5, -1.0, 2.0, 0.1, -0.2, 0.3, 1.5]
STEPS = 20


def gradient(k):
    return [math.sin(k + 3 * i) * (1 + i / 2) for i in range(7)]


def trajectory(make, clip=None):
    a = torch.nn.Parameter(torch.tensor(START[:3]))
    b = torch.nn.Parameter(torch.tensor(START[3:]).reshape(2, 2))
    optimizer = make([a, b])
    rows, norms = [], []
    for k in range(STEPS):
        g = torch.tensor(gradient(k))
        a.grad, b.grad = g[:3].clone(), g[3:].reshape(2, 2).clone()
        if clip is not None:
            norms.append(float(torch.nn.utils.clip_grad_norm_([a, b], clip)))
        optimizer.step()
        rows.append(a.detach().tolist() + b.detach().flatten().tolist())
    return {"weights": rows, "norms": norms}


def schedule(make):
    lr = 1.0
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    s = make(optimizer)
    rates = []
    for _ in range(25):
        rates.append(s.get_last_lr()[0])
        optimizer.step()
        s.step()
    return rates


optim = torch.optim
print(json.dumps({
    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    "start": START,
    "adamw": trajectory(lambda p: optim.AdamW(p, lr=0.05, weight_decay=0.0)),
    "adamw_decay": trajectory(lambda p: optim.AdamW(p, lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)),
    "adamw_clip": trajectory(lambda p: optim.AdamW(p, lr=0.05, weight_decay=0.0), clip=5.0),
    "sgd": trajectory(lambda p: optim.SGD(p, lr=0.05)),
    "sgd_momentum": trajectory(lambda p: optim.SGD(p, lr=0.05, momentum=0.9)),
    "sgd_nesterov": trajectory(lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1)),
    "sgd_clip": trajectory(lambda p: optim.SGD(p, lr=0.05, momentum=0.9), clip=3.0),
    "constant": schedule(lambda o: transformers.get_constant_schedule_with_warmup(o, 4)),
    "linear": schedule(lambda o: transformers.get_linear_schedule_with_warmup(o, 4, 24)),
    "cosine": schedule(lambda o: transformers.get_cosine_schedule_with_warmup(o, 4, 24)),
    "cosine_cold": schedule(lambda o: transformers.get_cosine_schedule_with_warmup(o, 0, 25)),
}))
