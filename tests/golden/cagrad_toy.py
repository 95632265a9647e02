"""Losses and gradients of CAGrad's toy problem by the authors' own class and torch's autograd, in float64.

    python tests/golden/cagrad_toy.py PATH/TO/toy.py     (github.com/Cranial-XIX/CAGrad, commit dc3d481)

Only the class is taken from the file. Points lie in both halves, on y = 0 and close to the walls.
"""

import ast
import json
import random
import sys
from pathlib import Path

import torch
import torch.nn as nn

tree = ast.parse(Path(sys.argv[1]).read_text())
parts = [node for node in tree.body if getattr(node, "name", "") == "Toy" or isinstance(node, ast.Assign) and node.targets[0].id == "LOWER"]
scope = {"torch": torch, "nn": nn}
exec(compile(ast.Module(parts, []), "toy.py", "exec"), scope)
toy = scope["Toy"]()

chance = random.Random(0)
points = [[chance.uniform(-11, 11), chance.uniform(-11, 11)] for _ in range(40)]
points += [[-8.5, 7.5], [-8.5, -5.0], [9.0, 9.0], [2.0, 0.0], [-5.0, 3.3], [5.0, 2.1]]
rows = []
for point in points:
    x = torch.tensor(point, dtype=torch.float64, requires_grad=True)
    losses = toy.batch_forward(x.unsqueeze(0))[0]
    jacobian = [torch.autograd.grad(loss, x, retain_graph=True)[0].tolist() for loss in losses]
    rows.append({"x": point, "losses": losses.tolist(), "jacobian": jacobian})
out = Path(__file__).with_suffix(".json")
out.write_text(json.dumps({"torch": torch.__version__, "rows": rows}) + "\n")
