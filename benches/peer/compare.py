"""raco's training step beside the authors' way in PyTorch, in turns on the same weights and tokens.

    pip install -r benches/peer/requirements.txt
    cargo build --release
    python3 benches/peer/compare.py --shape M
    python3 benches/peer/compare.py --shape L --model DIR --pairs FILE --m 1,2,3 [--rank 16]

First both compute losses and Gramian of the same batch, which must agree. Then the programs take turns, `--rounds` times, with
`--samples` each after a discarded step. Printed are medians over the rounds of raco / PyTorch: CPU time of the process, wall
time, peak memory beyond the weights (each number of objectives in a process of its own), and beside them the ratio of multiplications that the two ways need in the linear
layers. `--threads 1` is the measure that a busy machine disturbs least.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def lines(command, threads):
    environment = {
        **os.environ,
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=["S", "M", "L"], default="M")
    parser.add_argument("--m", default="1,2,3,8")
    parser.add_argument("--model", default="")
    parser.add_argument("--pairs", default="")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--keep", choices=["everything", "layers", "inputs"], default="everything", help="what raco's passes keep")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--variants", default="authors,responses")
    parser.add_argument("--raco", type=Path, default=ROOT / "target/release/raco")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(args, folder)


def compare(args, folder):
    raco = [args.raco.absolute(), "script", "scripts/bench/step.rhai", "--shape", args.shape, "--json"]
    raco += ["--rank", str(args.rank), "--keep", args.keep]
    for key in ("model", "pairs"):
        if getattr(args, key):
            raco += [f"--{key}", str(Path(getattr(args, key)).absolute())]
    peer = [sys.executable, HERE / "peer.py", folder, "--samples", str(args.samples), "--threads", str(args.threads)]
    lines(raco + ["--m", args.m, "--save", folder, "--samples", "1"], args.threads)
    raco += ["--samples", str(args.samples)]
    for variant in args.variants.split(","):
        for found in lines(peer + ["--m", args.m, "--variant", variant, "--check"], args.threads):
            # both compute in f32; thirty layers round to 2e-5
            same = found["losses"] < 1e-5 and found["gramian"] < 5e-5
            print(f"m = {found['m']}, {variant}: losses differ by {found['losses']:.1e}, the Gramian by {found['gramian']:.1e} of the norms")
            if not same:
                sys.exit("the two programs do not compute the same")
    found = {}
    print(f"\nshape {args.shape}, rank {args.rank}, {args.keep} kept, {args.threads} threads, {args.rounds} rounds of {args.samples} samples; raco / PyTorch", flush=True)
    programs = {"raco": raco, **{v: peer + ["--variant", v] for v in args.variants.split(",")}}
    for _ in range(args.rounds):
        for name, m in ((name, m) for m in args.m.split(",") for name in programs):
            for row in lines(programs[name] + ["--m", m], args.threads):
                for key in ("cpu_ms", "wall_ms", "peak_mib", "gemm_share", "tokens"):
                    if key in row:
                        found.setdefault((name, row["m"], key), []).append(row[key])
    value = lambda name, m, key: statistics.median(found[name, m, key])
    head = f"{'m':>2} {'PyTorch':>10} {'CPU':>6} {'wall':>6} {'peak':>6} {'count':>6} | {'raco CPU ms':>11} {'of m=1':>6} {'wall ms':>8} {'MiB':>6} {'products':>8}"
    print(head)
    ms = [int(m) for m in args.m.split(",")]
    rows = json.loads((Path(folder) / "batch.json").read_text())["rows"]
    packed = sum(len(r["prompt_ids"]) + len(r["chosen_ids"]) + len(r["rejected_ids"]) for r in rows)
    for m in ms:
        for variant in args.variants.split(","):
            ratio = lambda key: value("raco", m, key) / value(variant, m, key)
            # forward, activations and weights of each packed token, against a forward and m backwards of each padded one;
            # with an adapter the frozen weights have no gradient
            ours, theirs = (2, 1 + m) if args.rank else (3, 1 + 2 * m)
            count = packed * ours / (value(variant, m, "tokens") * theirs)
            own = f"{value('raco', m, 'cpu_ms'):11.1f} {value('raco', m, 'cpu_ms') / value('raco', ms[0], 'cpu_ms'):6.2f} {value('raco', m, 'wall_ms'):8.1f} {value('raco', m, 'peak_mib'):6.0f} {value('raco', m, 'gemm_share'):8.2f}"
            print(f"{m:2} {variant:>10} {ratio('cpu_ms'):6.3f} {ratio('wall_ms'):6.3f} {ratio('peak_mib'):6.3f} {count:6.3f} | {own}")


main()
