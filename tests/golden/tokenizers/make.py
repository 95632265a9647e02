"""Renderings and ids of the real Qwen3, Llama 3 and Gemma 3 tokenizers, by transformers 5.24.

    tests/golden/tokenizers/fetch.sh
    python tests/golden/tokenizers/make.py [FOLDER]    # FOLDER: where fetch.sh put them, target/tokenizers
"""

import json
import sys
from pathlib import Path

import transformers
from transformers import AutoTokenizer

HERE = Path(__file__).parent
FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[2] / "target" / "tokenizers"


def turns(*contents, system=None):
    roles = ["user", "assistant"]
    head = [{"role": "system", "content": system}] if system else []
    return head + [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]


CONVERSATIONS = {
    "one turn": turns("Why is the sky blue?"),
    "system": turns("Name a colour.", system="You answer in one word."),
    "several turns": turns("Hi!", "Hello, how can I help?", "Sum up: Cleo sold ten red tents.", "Cleo sold tents.", "Shorter?"),
    "system and several turns": turns("2 + 2?", "4", "times 3?", system="Be brief.\n\nBe right."),
    "unicode": turns("Übersetze „naïve café“ 日本語 🦀👩‍👩‍👧 \u200b ﬁ e\u0301"),
    "white space": turns("  two  spaces,\ttab\n\n\nthree lines \n"),
    "code": turns("def f(x):\n    return x ** 2  # <b>&amp;</b> {{ x }} {% if %}\n"),
    "thought": turns("2 + 2?", "<think>\nlet me see\n</think>\n\n4", "and 3 + 3?"),
    "numbers": turns("1234567890 3.14159 1e-5 0x1F 2026-11-25"),
}
ANSWERS = ["Blue.", " leading space", "ünïcode 🦀\n\nand lines", "trailing \n"]
RAW = [
    ("The answer is", " 42."),
    ("The answer is", "42."),
    ("The answer is ", "42"),
    ("inter", "national"),
    ("Hello\n", "\nworld"),
    ("naï", "ve"),
    ("日本", "語"),
]


def ids(tokenizer, text, special=False):
    return tokenizer(text, add_special_tokens=special).input_ids


for family in ["qwen3", "llama3", "gemma3"]:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / family)
    render = lambda messages, ask: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
    chats = []
    for index, (name, messages) in enumerate(CONVERSATIONS.items()):
        text = render(messages, True)
        answer = ANSWERS[index % len(ANSWERS)]
        whole = render(messages + [{"role": "assistant", "content": answer}], False)
        assert whole.startswith(text), (family, name)
        chats.append({"name": name, "messages": messages, "text": text, "ids": ids(tokenizer, text),
                      "answer": answer, "whole": ids(tokenizer, whole), "closed": render(messages, False)})
    raw = [
        {"prompt": prompt, "answer": answer, "prompt_ids": ids(tokenizer, prompt, True),
         "answer_ids": ids(tokenizer, answer), "whole": ids(tokenizer, prompt + answer, True)}
        for prompt, answer in RAW
    ]
    golden = {"transformers": transformers.__version__, "vocab": len(tokenizer), "bos": tokenizer.bos_token_id,
              "eos": tokenizer.eos_token_id, "chats": chats, "raw": raw}
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    (HERE / f"{family}.json").write_text(text.replace('{"name"', '\n{"name"').replace('{"prompt"', '\n{"prompt"') + "\n")
