"""Rows in each layout as Parquet files, written by pyarrow 26.0.1; the same rows beside them as JSONL.

    python tests/golden/parquet/make.py
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
PAIRS = [
    ("Why is the sky blue?", "Rayleigh scattering: blue is scattered most.", "It is.", 1, -1),
    ("Übersetze: cat", "Katze 🐈", "Die Katze\nist ein Tier.", 0, 1),
    ("2 + 2?", "4", "Let me think. It is 4, \"four\".", -1, 1),
    ("Name a colour.", "Red", "Blue, if you ask me", None, 1),
]


def turns(prompt, answer):
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def write(name, rows, schema=None, **options):
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), HERE / f"{name}.parquet", **options)
    text = "".join(json.dumps(row, ensure_ascii=False, default=dict) + "\n" for row in rows)
    (HERE / f"{name}.jsonl").write_text(text)


# the authors' layout: lists of messages, labels as floats, one missing; two row groups
write(
    "raco",
    [
        {"chosen": turns(p, a), "rejected": turns(p, b), "raco_s_quality": None if q is None else float(q),
         "raco_s_verbosity": float(v)}
        for p, a, b, q, v in PAIRS
    ],
    compression="zstd", row_group_size=2,
)
# their other layout, with dictionary pages
side = {1: "A", -1: "B", 0: "tie", None: None}
write(
    "moa",
    [
        {"Summary_A": turns(p, a), "Summary_B": turns(p, b), "Quality": side[q], "Verbosity": side[v]}
        for p, a, b, q, v in PAIRS
    ],
    compression="snappy", use_dictionary=True,
)
# canonical, labels as a struct of small ints, large strings
write(
    "struct",
    [{"prompt": p, "chosen": a, "rejected": b, "objectives": {"quality": q, "verbosity": v}} for p, a, b, q, v in PAIRS],
    schema=pa.schema([
        ("prompt", pa.large_string()), ("chosen", pa.large_string()), ("rejected", pa.large_string()),
        ("objectives", pa.struct([("quality", pa.int8()), ("verbosity", pa.int8())])),
    ]),
    compression="gzip",
)
# canonical, labels as a map, and a column that no layout reads
maps = [
    {"prompt": p, "chosen": a, "rejected": b,
     "objectives": [(name, label) for name, label in (("quality", q), ("verbosity", v)) if label is not None]}
    for p, a, b, q, v in PAIRS
]
pq.write_table(
    pa.Table.from_pylist(maps, schema=pa.schema([
        ("prompt", pa.string()), ("chosen", pa.string()), ("rejected", pa.string()),
        ("objectives", pa.map_(pa.string(), pa.int64())),
    ])).append_column("created", pa.array([0] * len(maps), pa.timestamp("us"))),
    HERE / "map.parquet", compression="lz4", data_page_version="2.0",
)
# ids
write(
    "ids",
    [{"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5], "objectives": {"quality": 1}},
     {"prompt_ids": [6], "chosen_ids": [7, 8, 9], "rejected_ids": [1], "objectives": {"quality": -1}}],
    compression="none",
)
