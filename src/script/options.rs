//! The options of the host functions: what they take and what `raco check` knows is one table.

/// Functions whose last argument may be an options map, and maps within such maps, with their keys; a key that is
/// read and not here is a fault that [`Opts`](super::value::Opts) reports.
const OPTIONS: &[(&str, &[&str])] = &[
    ("adamw", &["lr", "betas", "eps", "decay", "clip", "schedule", "steps", "warmup"]),
    ("batches", &["size", "steps", "seed", "share_prompt"]),
    ("bootstrap", &["samples", "seed", "level"]),
    ("bootstrap_t", &["samples", "seed", "level"]),
    ("contours", &["x", "y", "values"]),
    ("demonstrations", READ),
    (
        "estimate",
        &[
            "pairs",
            "prompt",
            "chosen",
            "rejected",
            "rank",
            "share_prompt",
            "dtype",
            "size",
            "objectives",
            "optimizer",
            "keep",
            "memory",
            "reference",
        ],
    ),
    ("evaluate", &["max_tokens", "temperature", "top_p", "seed", "template", "stop"]),
    ("fronts", &["objectives", "reference", "tolerance", "baseline", "control", "level", "samples", "seed"]),
    ("generate", &["max_tokens", "temperature", "top_p", "seed", "first_index", "template", "stop"]),
    ("jacobian", &["pairs", "gramian_only"]),
    (
        "judge_http",
        &[
            "url",
            "model",
            "prompt",
            "system",
            "key",
            "temperature",
            "extra",
            "timeout_s",
            "retries",
            "backoff_s",
            "concurrency",
            "cache",
        ],
    ),
    ("label", &["margin"]),
    ("load_model", &["adapter", "device", "dtype", "kernels", "objectives"]),
    ("load_preferences", READ),
    ("log_probs", &["memory"]),
    ("lora", &["rank", "alpha", "rslora", "targets", "seed"]),
    (
        "plot",
        &[
            "title", "x_label", "y_label", "mark", "equal", "contours", "behind", "lines", "dashed",
            "points", "rings", "panels", "columns",
        ],
    ),
    ("preferences", READ),
    ("save", &["dtype"]),
    ("sgd", &["lr", "momentum", "decay", "nesterov", "clip", "schedule", "steps", "warmup"]),
    ("start_run", &["checkpoint_every", "keep"]),
    ("sweep", &["out", "jobs"]),
    ("tables", &["title", "head", "rows", "signed", "bars"]),
    ("view", &["title", "notes", "plot", "values", "tables"]),
];

/// The options of what reads rows.
const READ: &[&str] =
    &["objectives", "template", "max_length", "max_prompt_length", "truncation", "reference"];

/// The options of a function, where it has any.
pub(crate) fn options_of(function: &str) -> Option<&'static [&'static str]> {
    OPTIONS.iter().find(|(name, _)| *name == function).map(|(_, keys)| *keys)
}
