//! Text ↔ token ids, as the files of a Hugging Face folder say.

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::row::{Message, excerpt};
use super::template::ChatTemplate;
use crate::error::{Error, Result, io_error};

const FILES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
];

const AGAIN: &str = "fetch the file again";

/// A tokenizer with its chat template and end tokens, as a Hugging Face folder holds them.
pub struct Tokenizer {
    pub(super) inner: tokenizers::Tokenizer,
    files: Vec<(&'static str, Vec<u8>)>,
    pub(super) template: Option<ChatTemplate>,
    bos: Option<u32>,
    pad: Option<u32>,
    end_tokens: Vec<u32>,
    vocab_size: usize,
    max_id: u32,
    fingerprint: String,
}

impl Tokenizer {
    /// Reads tokenizer.json and, where present, tokenizer_config.json, chat_template.jinja,
    /// special_tokens_map.json and generation_config.json.
    ///
    /// # Errors
    /// No tokenizer.json, a malformed file, a special token that is no token.
    pub fn load(dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for name in FILES {
            match std::fs::read(dir.join(name)) {
                Ok(bytes) => files.push((name, bytes)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && name != FILES[0] => {}
                Err(e)
                    if e.kind() == std::io::ErrorKind::NotFound && dir.join("tokenizer.model").exists() =>
                {
                    return Err(Error::new("the folder has tokenizer.model but no tokenizer.json")
                        .in_file(dir)
                        .help("make it with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"));
                }
                Err(e) => return Err(io_error(&e, "read the tokenizer", dir.join(name))),
            }
        }
        Self::from_files(files, dir)
    }

    /// Space-separated words: ids 0 to 3 are `<|pad|> <|user|> <|assistant|> <|end|>`, then the words in their
    /// order, first occurrence wins. A conversation renders as `<|user|> PROMPT <|assistant|> RESPONSE <|end|>`.
    /// A word outside the list cannot be encoded.
    ///
    /// # Errors
    /// An empty word or one with white space.
    pub fn word_level(words: &[String]) -> Result<Self> {
        const SPECIAL: [&str; 4] = ["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"];
        const TEMPLATE: &str = "{% for m in messages %}{{ '<|' + m['role'] + '|> ' + m['content'] }}\
             {% if m['role'] == 'assistant' %}{{ ' <|end|>' }}{% endif %}{{ ' ' }}{% endfor %}\
             {% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";
        let mut vocab = Map::new();
        for word in SPECIAL.into_iter().chain(words.iter().map(String::as_str)) {
            if word.is_empty() || word.contains(char::is_whitespace) {
                return Err(Error::new(format!(
                    "a word must not be empty or have white space, found `{word}`"
                ))
                .help("split the text at its white space"));
            }
            let next = vocab.len();
            vocab.entry(word).or_insert_with(|| json!(next));
        }
        let added = |(id, word): (usize, &str)| {
            json!({ "id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true })
        };
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": SPECIAL.into_iter().enumerate().map(added).collect::<Vec<_>>(),
            "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" },
            "post_processor": null, "decoder": null,
            // the unknown token is no token on purpose: a word outside the list is an error, not a guess
            "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<|unknown|>" },
        });
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": SPECIAL[0], "eos_token": SPECIAL[3],
            "clean_up_tokenization_spaces": false, "chat_template": TEMPLATE,
        });
        Self::from_files(vec![(FILES[0], pretty(&tokenizer)), (FILES[1], pretty(&config))], Path::new(""))
    }

    fn from_files(files: Vec<(&'static str, Vec<u8>)>, dir: &Path) -> Result<Self> {
        let bytes = |name: &str| files.iter().find(|(n, _)| *n == name).map(|(_, bytes)| bytes.as_slice());
        let mut inner =
            tokenizers::Tokenizer::from_bytes(bytes(FILES[0]).unwrap_or_default()).map_err(|e| {
                Error::new(format!("cannot read the tokenizer: {e}")).in_file(dir.join(FILES[0])).help(AGAIN)
            })?;
        // a length limit or padding of the file would change the ids without a word
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| Error::internal(format!("cannot lift the truncation: {e}")))?;

        let mut maps = [Map::new(), Map::new(), Map::new()];
        for (map, name) in maps.iter_mut().zip([FILES[1], FILES[3], FILES[4]]) {
            if let Some(bytes) = bytes(name) {
                *map = serde_json::from_slice(bytes).map_err(|e| {
                    Error::new(format!("malformed JSON: {e}")).in_file(dir.join(name)).help(AGAIN)
                })?;
            }
        }
        let [config, special_map, generation] = maps;
        let special = special_tokens(&config, &special_map);
        let id_of = |name: &str| match special.iter().find(|(n, _)| n == name) {
            None => Ok(None),
            Some((_, token)) => inner.token_to_id(token).map(Some).ok_or_else(|| {
                Error::new(format!("{name} `{token}` is not in the vocabulary"))
                    .in_file(dir.join(FILES[1]))
                    .help("take tokenizer.json and tokenizer_config.json from the same model")
            }),
        };
        let (bos, eos, pad) = (id_of("bos_token")?, id_of("eos_token")?, id_of("pad_token")?);
        let mut end_tokens: Vec<u32> = eos.into_iter().collect();
        for id in ids_of(generation.get("eos_token_id")) {
            if !end_tokens.contains(&id) {
                end_tokens.push(id);
            }
        }
        let template = match (bytes(FILES[2]), config.get("chat_template")) {
            (Some(bytes), _) => {
                let source = std::str::from_utf8(bytes).map_err(|e| {
                    Error::new(format!("not UTF-8: {e}")).in_file(dir.join(FILES[2])).help(AGAIN)
                })?;
                Some((source.to_owned(), FILES[2]))
            }
            (None, Some(value)) => default_template(value).map(|source| (source, FILES[1])),
            (None, None) => None,
        };
        let template = template
            .map(|(source, file)| ChatTemplate::new(&source, special).map_err(|e| e.in_file(dir.join(file))))
            .transpose()?;
        let vocab = inner.get_vocab(true);
        let mut hash = blake3::Hasher::new();
        for (name, bytes) in &files {
            hash.update(name.as_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
        Ok(Self {
            template,
            bos,
            pad,
            end_tokens,
            vocab_size: vocab.len(),
            max_id: vocab.values().copied().max().unwrap_or(0),
            fingerprint: hash.finalize().to_hex().to_string(),
            inner,
            files,
        }
        .with_turn_end())
    }

    /// Adds the special token that the chat template writes right after an answer to the end tokens: base
    /// models name another one in their files.
    fn with_turn_end(mut self) -> Self {
        const ANSWER: &str = "yes";
        let turns = [Message::new("user", "so"), Message::new("assistant", ANSWER)];
        let rendered = self.template.as_ref().and_then(|chat| chat.render(&turns, false).ok());
        let after = rendered.as_deref().and_then(|text| text.rsplit_once(ANSWER)).map(|(_, after)| after);
        if let Some(&id) = after.and_then(|text| self.encode(text).ok()).unwrap_or_default().first() {
            let special = self
                .inner
                .get_added_vocabulary()
                .get_added_tokens_decoder()
                .get(&id)
                .is_some_and(|t| t.special);
            if special && !self.end_tokens.contains(&id) {
                self.end_tokens.push(id);
            }
        }
        self
    }

    /// Writes the files that the tokenizer was read from, byte for byte.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(|e| io_error(&e, "make the folder", dir))?;
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            std::fs::write(&path, bytes).map_err(|e| io_error(&e, "write the tokenizer", &path))?;
        }
        Ok(())
    }

    /// Token ids of a text; special tokens written in the text are recognised, none is added.
    ///
    /// # Errors
    /// A word that the vocabulary cannot express.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self.inner.encode_fast(text, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(e) => {
                let unknown =
                    text.split_whitespace().find(|word| self.inner.encode_fast(*word, false).is_err());
                Err(match unknown {
                    Some(word) => Error::new(format!("the vocabulary has no word `{}`", excerpt(word)))
                        .help("use words of the vocabulary, separated by spaces"),
                    None => Error::new(format!("the text cannot be tokenised: {e}"))
                        .help("leave the text out, or fetch the tokenizer again"),
                })
            }
        }
    }

    /// The text of token ids; special tokens are left out.
    ///
    /// # Errors
    /// What the tokenizer's decoder says.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|e| {
            Error::new(format!("the ids cannot be decoded: {e}")).help("use the ids of this tokenizer")
        })
    }

    /// The id of one token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The largest id of any token.
    pub fn max_id(&self) -> u32 {
        self.max_id
    }

    /// The token that ends a response.
    pub fn end_token(&self) -> Option<u32> {
        self.end_tokens.first().copied()
    }

    /// All tokens that end a generation: `eos_token`, those of generation_config.json, and the token that the
    /// chat template writes after an answer.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// The begin-of-text token.
    pub fn bos_token(&self) -> Option<u32> {
        self.bos
    }

    /// The padding token.
    pub fn pad_token(&self) -> Option<u32> {
        self.pad
    }

    /// True if there is a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// A hash of everything that decides what the tokenizer does.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Refuses a tokenizer whose ids a model of `vocab` embedding rows does not have.
    ///
    /// Added tokens beyond the last row are let through, since some published models have them (an image
    /// token, say); a row that uses one is refused when it is read.
    ///
    /// # Errors
    /// A token of the base vocabulary, or an end token, at or beyond `vocab`.
    pub fn check_fits(&self, vocab: usize) -> Result<()> {
        let help = "use the tokenizer that the model was trained with";
        if let Some(id) = self.end_tokens.iter().find(|id| **id as usize >= vocab) {
            return Err(Error::new(format!(
                "the tokenizer does not fit the model: end token `{id}`, but the model has {vocab} token rows"
            ))
            .help(help));
        }
        match self.inner.get_vocab(false).into_values().max() {
            Some(max) if max as usize >= vocab => Err(Error::new(format!(
                "the tokenizer does not fit the model: token ids up to `{max}`, but the model has {vocab} token rows"
            ))
            .help(help)),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chat = if self.has_template() { "a" } else { "no" };
        write!(f, "Tokenizer({} tokens, {chat} chat template)", self.vocab_size)
    }
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// The variables (`bos_token`, `<s>`) that templates may use; tokenizer_config.json wins.
fn special_tokens(config: &Map<String, Value>, special_map: &Map<String, Value>) -> Vec<(String, String)> {
    ["bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"]
        .into_iter()
        .filter_map(|name| {
            let value = config.get(name).filter(|v| !v.is_null()).or_else(|| special_map.get(name))?;
            let token = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some((name.to_owned(), token.to_owned()))
        })
        .collect()
}

fn ids_of(value: Option<&Value>) -> Vec<u32> {
    let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(one).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// `chat_template` is a template, or a list of named ones.
fn default_template(value: &Value) -> Option<String> {
    match value {
        Value::String(source) => Some(source.clone()),
        Value::Array(list) => list
            .iter()
            .find(|entry| entry["name"] == "default")
            .and_then(|entry| Some(entry["template"].as_str()?.to_owned())),
        _ => None,
    }
}
