"""Adapters made by PEFT on the tiny models beside this file, and what PEFT computes with them (f32, CPU).

    python tests/golden/adapters.py         # needs torch, transformers, peft; the versions used are in adapters/versions.json

For each adapter: adapters/NAME/ is a folder as PEFT saves it, adapters/NAME/golden.json has the log-probs of every response
token of the base's golden.json and greedy generations, adapters/NAME/gradients.safetensors has the gradient of the sum of
those log-probs by every A and B. With a folder as the argument, PEFT loads that adapter (one that raco wrote) and the
log-probs are printed as JSON instead.
"""
import json
import pathlib
import shutil
import sys

import peft
import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).parent
ADAPTERS = {
    "llama": ("llama_untied", dict(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj"])),
    "qwen3": ("qwen3_tied", dict(r=2, lora_alpha=5, target_modules="all-linear", use_rslora=True)),
    "gemma3": ("gemma3_text", dict(r=2, lora_alpha=4, target_modules=r".*layers\.\d*[13579]\.(self_attn|mlp)\.(o|up|down)_proj")),
}


def sequences(base):
    return json.loads((HERE / base / "golden.json").read_text())["sequences"]


def log_probs(model, prompt, response):
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1:-1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


def load(base):
    return transformers.AutoModelForCausalLM.from_pretrained(HERE / base, dtype=torch.float32).eval()


def scores(model, base):
    return [[log_probs(model, s["prompt"], r) for r in s["responses"]] for s in sequences(base)]


def make(name, base, options):
    torch.manual_seed(7)
    model = peft.get_peft_model(load(base), peft.LoraConfig(task_type="CAUSAL_LM", **options))
    factors = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for n, p in factors.items():
        if "lora_B" in n:
            p.data = 0.3 * torch.randn(p.shape)
    values = scores(model, base)
    sum(v.sum() for row in values for v in row).backward()
    prompt = sequences(base)[1]["prompt"]
    out = model.generate(input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=24,
                         attention_mask=torch.ones(1, len(prompt), dtype=torch.long))
    folder = HERE / "adapters" / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base  # not the path on this machine
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    bare = lambda n: n.removeprefix("base_model.model.").replace(".default", "")
    safetensors.torch.save_file({bare(n): p.grad for n, p in factors.items()}, folder / "gradients.safetensors")
    golden = {"base": base, "log_probs": [[v.tolist() for v in row] for row in values],
              "prompt": prompt, "response": out[0, len(prompt):].tolist()}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        base, folder = sys.argv[1:]
        model = peft.PeftModel.from_pretrained(load(base), folder)
        print(json.dumps([[v.tolist() for v in row] for row in scores(model, base)]))
        sys.exit()
    for name, (base, options) in ADAPTERS.items():
        make(name, base, options)
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    (HERE / "adapters" / "versions.json").write_text(json.dumps(versions) + "\n")
