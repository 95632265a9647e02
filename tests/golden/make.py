"""Tiny random decoders and what transformers computes with them (f32, CPU).

    python tests/golden/make.py [NAME …]  # needs torch, transformers, tokenizers; the versions used are in versions.json

For each model: NAME/ is a Hugging Face folder; NAME/golden.json has per-token log-probs of ragged responses,
logits of the last prompt position and greedy generations; NAME/gradients.safetensors has the gradient of the
sum of all those log-probs.
"""
import json
import pathlib
import shutil
import sys

import safetensors.torch
import tokenizers
import torch
import transformers

HERE = pathlib.Path(__file__).parent
VOCAB, NEW_TOKENS = 64, 64
COMMON = dict(vocab_size=VOCAB, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128,
              bos_token_id=None, eos_token_id=None, pad_token_id=0)
MODELS = {
    "llama_untied": transformers.LlamaConfig(
        hidden_size=24, intermediate_size=40, num_key_value_heads=2, rms_norm_eps=1e-5,
        tie_word_embeddings=False, **COMMON),
    "llama3_tied": transformers.LlamaConfig(
        hidden_size=32, intermediate_size=24, num_key_value_heads=1, rms_norm_eps=1e-5, tie_word_embeddings=True,
        # wavelengths on both sides of the two bounds, and between them
        rope_parameters=dict(rope_type="llama3", rope_theta=100.0, factor=8.0, low_freq_factor=1.0,
                             high_freq_factor=4.0, original_max_position_embeddings=32), **COMMON),
    "qwen3_tied": transformers.Qwen3Config(
        hidden_size=24, intermediate_size=32, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6,
        tie_word_embeddings=True, **COMMON),
    # windows shorter than the sequences, both kinds of layer, a cap on the logits; transformers reads the other cap
    # and computes nothing with it
    "gemma3_text": transformers.Gemma3TextConfig(
        hidden_size=24, intermediate_size=32, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=12,
        sliding_window=7, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=500.0),
                             sliding_attention=dict(rope_type="default", rope_theta=20.0)),
        final_logit_softcapping=6.0, attn_logit_softcapping=1.0, **{**COMMON, "num_hidden_layers": 3}),
    # as 4B and up: text and vision towers, a scaled rope
    "gemma3_nested": transformers.Gemma3Config(
        text_config=dict(
            hidden_size=16, intermediate_size=24, num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=6,
            sliding_window=5, layer_types=["sliding_attention", "full_attention"],
            rope_parameters=dict(full_attention=dict(rope_type="linear", rope_theta=1000.0, factor=8.0),
                                 sliding_attention=dict(rope_type="default", rope_theta=30.0)), **COMMON),
        vision_config=dict(hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
                           image_size=4, patch_size=2, vision_use_head=False),
        mm_tokens_per_image=4, image_token_index=3, boi_token_index=2, eoi_token_index=1,
        eos_token_id=None),
}


def tokenizer():
    words = ["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"] + [f"w{i}" for i in range(VOCAB - 4)]
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<|pad|>")
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(words[:4])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=words[0])


def randomise(model, generator):
    """Wide enough that attention, gates and logits are far from uniform."""
    gemma = "gemma3" in model.config.model_type
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.dim() == 1:
            # Gemma multiplies by 1 + w; its logits would be small
            p.data = 0.2 * noise + (1 if not gemma else 12 if name.endswith("model.norm.weight") else 0)
        elif "embed" in name or "lm_head" in name:
            p.data = 0.6 * noise
            if gemma:  # scaled up on the way in: a tied head would repeat its input
                p.data /= 3 * p.shape[1] ** 0.5
        else:
            p.data = 2.0 * noise / p.shape[1] ** 0.5


def log_probs(model, prompt, response):
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1:-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


def make(name, config, seed):
    """False if the seed gives generations that compare badly."""
    generator = torch.Generator().manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    randomise(model, generator)
    model.tie_weights()
    ids = lambda n: torch.randint(4, VOCAB, (n,), generator=generator).tolist()
    shared = ids(3)
    pairs = [(ids(5), [ids(7), ids(4)]), (ids(11), [ids(1), ids(9)]), (ids(2), [shared + ids(2), shared + ids(5)])]
    sequences, total = [], 0
    for prompt, responses in pairs:
        values = [log_probs(model, prompt, response) for response in responses]
        total = total + sum(v.sum() for v in values)
        logits = model(torch.tensor([prompt])).logits[0, -1]
        sequences.append({"prompt": prompt, "responses": responses, "log_probs": [v.tolist() for v in values],
                          "last_prompt_logits": logits.tolist()})
    total.backward()
    generations = []
    for prompt in [ids(1), ids(6), ids(17), ids(40)]:
        out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW_TOKENS,
                             attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                             output_logits=True, return_dict_in_generate=True)
        top = torch.stack(out.logits)[:, 0].topk(2).values
        response = out.sequences[0, len(prompt):].tolist()
        if (top[:, 0] - top[:, 1]).min() < 2e-3 or len(set(response)) < 8:
            return False  # a near tie, or a short loop
        generations.append({"prompt": prompt, "response": response})
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    gradients = {n.replace("language_model.", ""): p.grad for n, p in model.named_parameters() if p.grad is not None}
    safetensors.torch.save_file(gradients, folder / "gradients.safetensors")
    (folder / "golden.json").write_text(json.dumps({"sequences": sequences, "generations": generations}) + "\n")
    return True


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, config in MODELS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        print(name, "seed", next(seed for seed in range(1000) if make(name, config, seed)))
    versions = {m.__name__: m.__version__ for m in (torch, transformers, tokenizers)}
    (HERE / "versions.json").write_text(json.dumps(versions) + "\n")
