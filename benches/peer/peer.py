"""One training step with several objectives in PyTorch, the way the authors of RACO take it.

    python3 benches/peer/peer.py DIR --m 1,2,3,8 [--variant authors|responses] [--threads 2] [--samples 5]

DIR is what `raco script scripts/bench/step.rhai --save DIR` wrote: `model/` (a Hugging Face folder), `adapter/` where the
step trains one, `batch.json` with token ids, labels, beta, c and lr, and `mM.json` with raco's losses and Gramian, which the
ones computed here must equal.

A step is one forward of the padded batch, chosen and rejected responses each with their own copy of the prompt; m losses; m
backwards that keep the graph; the Gramian; the clipped dual; and the update. `authors` has the logits of all positions,
`responses` the stronger variant: the head on the hidden states of response tokens alone. Attention is PyTorch's
scaled_dot_product_attention in both. A line of JSON for each m, medians over the samples after a discarded step; CPU time is
that of the whole process, peak memory what the first two steps with m objectives take beyond what is resident before any.

Needs: torch, transformers, and peft for an adapter (benches/peer/requirements.txt).
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch.nn.functional import log_softmax, logsigmoid
from transformers import AutoModelForCausalLM


def status_mib(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key))


class Step:
    def __init__(self, folder, variant, exact):
        self.variant = variant
        self.exact = exact  # a Gramian in double precision, to compare with
        self.given = json.loads((folder / "batch.json").read_text())
        model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="sdpa")
        # a chat template may write the pad token, whose row would otherwise have no gradient
        model.get_input_embeddings().padding_idx = None
        if (folder / "adapter").is_dir():
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
        self.model = model.train()
        self.inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        rows = self.given["rows"]
        sequences = [(r["prompt_ids"], r[key]) for key in ("chosen_ids", "rejected_ids") for r in rows]
        longest = max(len(prompt) + len(response) for prompt, response in sequences)
        self.tokens = torch.zeros(len(sequences), longest, dtype=torch.long)
        self.mask = torch.zeros(len(sequences), longest, dtype=torch.long)
        self.scored = torch.zeros(len(sequences), longest, dtype=torch.bool)
        for i, (prompt, response) in enumerate(sequences):
            end = len(prompt) + len(response)
            self.tokens[i, :end] = torch.tensor(prompt + response)
            self.mask[i, :end] = 1
            self.scored[i, len(prompt):end] = True
        with torch.no_grad():
            self.reference = self.margins()

    def margins(self):
        targets, scored = self.tokens[:, 1:], self.scored[:, 1:]
        if self.variant == "authors":
            logits = self.model(input_ids=self.tokens, attention_mask=self.mask, use_cache=False).logits[:, :-1]
            each = log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
            sums = (each * scored).sum(-1)
        else:
            hidden = self.inner.model(input_ids=self.tokens, attention_mask=self.mask, use_cache=False)[0][:, :-1]
            logits = self.inner.lm_head(hidden[scored])
            each = log_softmax(logits, -1).gather(-1, targets[scored].unsqueeze(-1)).squeeze(-1)
            rows = torch.arange(len(self.tokens)).unsqueeze(-1).expand_as(scored)[scored]
            sums = torch.zeros(len(self.tokens)).index_add(0, rows, each)
        chosen, rejected = sums.chunk(2)
        return chosen - rejected

    def gradients(self, m):
        """Losses, rows [m, P] as lists of tensors, Gramian."""
        delta = self.margins() - self.reference
        beta = self.given["beta"]
        losses = []
        for i in range(m):
            signs = torch.tensor([float(r["objectives"][f"o{i}"]) for r in self.given["rows"]])
            losses.append(-logsigmoid(beta * signs * delta).mean())
        rows = [torch.autograd.grad(loss, self.parameters, retain_graph=i + 1 < m) for i, loss in enumerate(losses)]
        flat = [torch.cat([g.flatten() for g in row]) for row in rows]
        h = torch.zeros(m, m, dtype=torch.float64)
        for i in range(m):
            for j in range(i + 1):
                h[i, j] = h[j, i] = torch.dot(flat[i], flat[j]).double() if not self.exact else torch.dot(flat[i].double(), flat[j].double())
        return losses, flat, h

    def run(self, m):
        losses, flat, h = self.gradients(m)
        w = torch.full((m,), 1.0 / m, dtype=torch.float64)
        p = torch.minimum(dual(h, w, self.given["c"]), w)
        g0 = (w @ h @ w).clamp(min=0).sqrt()
        gp = (p @ h @ p).clamp(min=0).sqrt()
        alpha = w + (self.given["c"] * g0 / gp * p if gp > 0 else 0)
        direction = sum(a.float() * row for a, row in zip(alpha, flat))
        with torch.no_grad():
            at = 0
            for parameter in self.parameters:
                parameter -= self.given["lr"] * direction[at:at + parameter.numel()].view_as(parameter)
                at += parameter.numel()
        return losses, h


def dual(h, w, c):
    """A minimiser of <Hw, p> + c |g0| sqrt(p'Hp) over the simplex, by projected descent: small beside the step."""
    b, s = h @ w, c * (w @ h @ w).clamp(min=0).sqrt()
    p = w.clone()
    rate = 1.0 / (h.diagonal().max() * (1 + c) + 1e-30)
    for _ in range(50):
        norm = (p @ h @ p).clamp(min=1e-30).sqrt()
        v = p - rate * (b + s * (h @ p) / norm)
        u = v.sort(descending=True).values
        k = torch.arange(1, len(v) + 1, dtype=v.dtype)
        t = (u.cumsum(0) - 1) / k
        p = (v - t[(u > t).nonzero().max()]).clamp(min=0)
    return p


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--m", default="1,2,3,8")
    parser.add_argument("--variant", choices=["authors", "responses"], default="authors")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="only compare losses and Gramian with raco's")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    step = Step(args.dir, args.variant, args.check)
    padded = step.tokens.numel()
    resident = status_mib("VmRSS")
    for m in map(int, args.m.split(",")):
        if args.check:
            losses, _, h = step.gradients(m)
            theirs = json.loads((args.dir / f"m{m}.json").read_text())
            mine, raco = torch.tensor([l.item() for l in losses]), torch.tensor(theirs["losses"])
            other = torch.tensor(theirs["gramian"], dtype=torch.float64)
            scale = h.diagonal().sqrt()
            print(json.dumps({
                "m": m,
                "losses": (mine - raco).abs().max().item(),
                "gramian": ((h - other).abs() / (scale[:, None] * scale)).max().item(),
            }), flush=True)
            continue
        Path("/proc/self/clear_refs").write_text("5")
        step.run(m)
        begun = time.perf_counter()
        step.run(m)
        repeats = max(1, round(0.3 / (time.perf_counter() - begun)))
        peak = status_mib("VmHWM") - resident
        cpu, wall = [], []
        for _ in range(args.samples):
            c, t = time.process_time(), time.perf_counter()
            for _ in range(repeats):
                step.run(m)
            cpu.append((time.process_time() - c) / repeats)
            wall.append((time.perf_counter() - t) / repeats)
        print(json.dumps({
            "m": m,
            "variant": args.variant,
            "cpu_ms": 1e3 * statistics.median(cpu),
            "wall_ms": 1e3 * statistics.median(wall),
            "peak_mib": peak,
            "tokens": padded,
        }), flush=True)


main()
