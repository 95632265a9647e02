"""Tiny GGUF files of every quantisation that raco names, and what transformers computes with them (f32, CPU).

    python tests/golden/make_gguf.py       # needs torch, transformers, tokenizers, gguf; versions in gguf_versions.json

For each family: gguf_NAME/model.gguf with its tokenizer beside it, and golden.json with per-token log-probs by the
model that transformers reads from the file. Blocks of the K types are random bytes with sane scales: the gguf package
dequantises them, but quantises to the simpler types only.
"""
import json
import pathlib
import shutil

import gguf
import numpy as np
import torch
import transformers

from make import VOCAB, log_probs, tokenizer

HERE = pathlib.Path(__file__).parent
Q = gguf.GGMLQuantizationType
TOP = {"token_embd": "token_embd", "output_norm": "output_norm", "output": "output"}
# hidden 256: the width of a block of the K types
FAMILIES = {
    "llama": dict(arch="llama", heads=2, kv=1, head_dim=16, ffn=32, tied=False, theta=10000.0,
                  types=dict(token_embd=Q.Q6_K, output=Q.Q5_K, attn_q=Q.Q4_K, attn_k=Q.Q8_0, attn_v=Q.Q4_0,
                             attn_output=Q.Q4_1, ffn_gate=Q.Q4_K, ffn_up=Q.Q5_0, ffn_down=Q.Q5_1)),
    "qwen3": dict(arch="qwen3", heads=2, kv=1, head_dim=16, ffn=32, tied=True, theta=1000000.0,
                  types=dict(token_embd=Q.Q4_K, attn_q=Q.Q2_K, attn_k=Q.Q3_K, attn_v=Q.F16, attn_output=Q.BF16,
                             ffn_gate=Q.Q8_0, ffn_up=Q.F32, ffn_down=Q.Q4_0)),
    "gemma3": dict(arch="gemma3", heads=2, kv=1, head_dim=16, ffn=32, tied=True, theta=1000000.0,
                   types=dict(token_embd=Q.Q8_0, attn_q=Q.Q4_0, attn_k=Q.Q6_K, attn_v=Q.Q5_K, attn_output=Q.Q8_0,
                              ffn_gate=Q.Q4_1, ffn_up=Q.Q6_K, ffn_down=Q.F16)),
}
HIDDEN, LAYERS, CONTEXT, WINDOW = 256, 1, 128, 5


def k_blocks(kind, shape, rng, scale):
    """Random blocks whose values are about `scale`."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (int(np.prod(shape)) // block, size), dtype=np.uint8)
    # where the f16 scales of a block are
    places = {Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}[kind]
    typical = {Q.Q2_K: 15, Q.Q3_K: 60, Q.Q4_K: 250, Q.Q5_K: 500, Q.Q6_K: 1000}[kind]
    for place in places:
        values = (scale / typical * rng.uniform(0.5, 1.5, len(raw))).astype(np.float16)
        raw[:, place:place + 2] = values.view(np.uint8).reshape(-1, 2)
    rows = int(np.prod(shape[:-1]))
    return raw.reshape(rows, -1)


def write(path, f, rng):
    arch = f["arch"]
    w = gguf.GGUFWriter(path, arch)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(HIDDEN)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(f["ffn"])
    w.add_head_count(f["heads"])
    w.add_head_count_kv(f["kv"])
    w.add_key_length(f["head_dim"])
    w.add_value_length(f["head_dim"])
    w.add_rope_dimension_count(f["head_dim"])
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(f["theta"])
    w.add_vocab_size(VOCAB)
    if arch == "gemma3":
        w.add_sliding_window(WINDOW)
    q, kv = f["heads"] * f["head_dim"], f["kv"] * f["head_dim"]
    layer = dict(attn_norm=(HIDDEN,), attn_q=(q, HIDDEN), attn_k=(kv, HIDDEN), attn_v=(kv, HIDDEN),
                 attn_output=(HIDDEN, q), ffn_norm=(HIDDEN,), ffn_gate=(f["ffn"], HIDDEN),
                 ffn_up=(f["ffn"], HIDDEN), ffn_down=(HIDDEN, f["ffn"]))
    if arch != "llama":
        layer |= dict(attn_q_norm=(f["head_dim"],), attn_k_norm=(f["head_dim"],))
    if arch == "gemma3":
        layer |= dict(post_attention_norm=(HIDDEN,), post_ffw_norm=(HIDDEN,))
    tensors = {"token_embd": (VOCAB, HIDDEN), "output_norm": (HIDDEN,)}
    if not f["tied"]:
        tensors["output"] = (VOCAB, HIDDEN)
    tensors |= {f"blk.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()}
    for name, shape in tensors.items():
        kind = f["types"].get(name.split(".")[-1], Q.F32)
        if len(shape) == 1:
            values = (1 + 0.2 * rng.standard_normal(shape)).astype(np.float32)
            w.add_tensor(f"{name}.weight", values)
            continue
        scale = 0.1 if name in TOP else 2.0 / shape[1] ** 0.5
        if kind in (Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K):
            data = k_blocks(kind, shape, rng, scale)
        else:
            data = gguf.quants.quantize((scale * rng.standard_normal(shape)).astype(np.float32), kind)
        w.add_tensor(f"{name}.weight", data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, family in FAMILIES.items():
        rng = np.random.default_rng(7)
        folder = HERE / f"gguf_{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write(folder / "model.gguf", family, rng)
        # transformers reads not all of the keys
        config = transformers.AutoConfig.from_pretrained(folder, gguf_file="model.gguf")
        config.head_dim = config.query_pre_attn_scalar = family["head_dim"]
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, gguf_file="model.gguf", config=config, dtype=torch.float32)
        sequences = []
        for prompt, response in [(5, 9), (1, 20), (17, 3)]:
            prompt, response = (rng.integers(4, VOCAB, n).tolist() for n in (prompt, response))
            with torch.no_grad():
                logits = model(torch.tensor([prompt])).logits[0, -1].tolist()
                values = log_probs(model.eval(), prompt, response).tolist()
            sequences.append({"prompt": prompt, "responses": [response], "log_probs": [values],
                              "last_prompt_logits": logits})
        print(name, model.config, [s["log_probs"][0][:4] for s in sequences])
        tokenizer().save_pretrained(folder)
        (folder / "golden.json").write_text(json.dumps({"sequences": sequences}) + "\n")
    import importlib.metadata
    versions = {m: importlib.metadata.version(m) for m in ("torch", "transformers", "gguf")}
    (HERE / "gguf_versions.json").write_text(json.dumps(versions) + "\n")
