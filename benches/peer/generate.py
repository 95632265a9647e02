"""raco's greedy generation beside `generate` of transformers, in turns on the same weights and prompts.

    pip install -r benches/peer/requirements.txt
    cargo build --release
    python3 benches/peer/generate.py
    python3 benches/peer/generate.py --model DIR --prompts FILE --take 16 --max_tokens 64

transformers decodes the whole batch with its key-value cache, prompts padded on the left. First the responses must be the
same; then the programs take turns, `--rounds` times. Printed are medians of raco / transformers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
ROOT = Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "data/model")
    parser.add_argument("--prompts", type=Path, default=ROOT / "data/summaries/prompts.jsonl")
    parser.add_argument("--take", type=int, default=200)
    parser.add_argument("--max_tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--raco", type=Path, default=ROOT / "target/release/raco")
    args = parser.parse_args()
    raco = [args.raco.absolute(), "script", "scripts/bench/generate.rhai", "--json", "--samples", "1"]
    for key in ("model", "prompts"):
        raco += [f"--{key}", str(getattr(args, key).absolute())]
    raco += ["--take", str(args.take), "--max_tokens", str(args.max_tokens)]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(args.threads)}

    def ours(*more):
        done = subprocess.run(raco + list(more), cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stdout + done.stderr)
        return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))

    with tempfile.TemporaryDirectory() as folder:
        ours("--save", f"{folder}/generated.json")
        given = json.loads(Path(folder, "generated.json").read_text())
    theirs = Transformers(args.model, given, args.threads)
    texts = theirs.run()
    same = sum(text.strip() == row["response"].strip() for text, row in zip(texts, given["rows"]))
    print(f"{same} of {len(texts)} responses are the same")
    if same < 0.95 * len(texts):
        sys.exit("the two programs do not generate the same")
    found = {"wall_ms": [], "cpu_ms": []}
    for _ in range(args.rounds):
        begun, cpu = time.perf_counter(), time.process_time()
        theirs.run()
        other = {"wall_ms": 1e3 * (time.perf_counter() - begun), "cpu_ms": 1e3 * (time.process_time() - cpu)}
        own = ours()
        for key, ratios in found.items():
            ratios.append((own[key] / other[key], own[key], other[key]))
    for key, ratios in found.items():
        ratio, own, other = sorted(ratios)[len(ratios) // 2]
        print(f"{key[:-3]}: raco / transformers {ratio:.3f} ({own / 1e3:.2f} s, {other / 1e3:.2f} s), {args.threads} threads")


class Transformers:
    def __init__(self, model, given, threads):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa").eval()
        rows = [row["prompt_ids"] for row in given["rows"]]
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        self.ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
        self.mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        self.options = {
            "max_new_tokens": given["max_tokens"],
            "do_sample": False,
            "pad_token_id": pad,
            "eos_token_id": self.tokenizer.eos_token_id,
        }

    def run(self):
        with self.torch.inference_mode():
            out = self.model.generate(self.ids, attention_mask=self.mask, use_cache=True, **self.options)
        return self.tokenizer.batch_decode(out[:, self.ids.shape[1]:], skip_special_tokens=True)


main()
