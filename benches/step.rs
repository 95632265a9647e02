//! One RACO step by m, against the plain way in the same run.
//!
//! ```text
//! cargo bench --bench step                  # both shapes, m = 1, 2, 3, 8
//! cargo bench --bench step -- medium 3      # one shape, one m
//! ```
//!
//! A step is: forward, m losses, Jacobian, Gramian, combined direction, AdamW. The plain way is composed candle
//! operations in f32 on a padded batch with its own copy of the prompt for each response, logits for response
//! tokens only, and m autograd backwards that share one forward; its optimiser is left out. The two alternate;
//! medians of the process's CPU time and of wall time are printed as ratios. "products" is the time of the matrix
//! products of raco's own step at m = 1 alone, warm, as a share of that step.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use raco::data::Batch;
use raco::engine::{LogProbs, Products, TAPE_BYTES, jacobian};
use raco::model::{Config, Model};
use raco::optim::{AdamW, Optimizer, Options, Schedule};
use raco::run::Meter;
use serde_json::json;

// shared with the tests, which use more of them
#[allow(dead_code)]
#[path = "../tests/common/oracle.rs"]
mod oracle;
#[allow(dead_code)]
#[path = "../tests/common/random.rs"]
mod random;

struct Shape {
    name: &'static str,
    config: Config,
    pairs: usize,
    /// Tokens of the prompt, and of each response.
    lengths: [usize; 3],
    samples: usize,
    repeats: usize,
}

fn shapes() -> [Shape; 2] {
    let config =
        |family: &str, layers: usize, hidden: usize, ffn: usize, heads: [usize; 3], vocab: usize, tied| {
            Config::from_json(json!({
                "model_type": family, "vocab_size": vocab, "hidden_size": hidden, "num_hidden_layers": layers,
                "num_attention_heads": heads[0], "num_key_value_heads": heads[1], "head_dim": heads[2],
                "intermediate_size": ffn, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
                "tie_word_embeddings": tied, "max_position_embeddings": 512
            }))
            .unwrap()
        };
    [
        Shape {
            name: "embedded",
            config: config("qwen3", 3, 96, 192, [4, 2, 32], 225, true),
            pairs: 16,
            lengths: [34, 16, 16],
            samples: 7,
            repeats: 20,
        },
        Shape {
            name: "medium",
            config: config("llama", 4, 256, 704, [4, 4, 64], 4096, false),
            pairs: 8,
            lengths: [64, 64, 64],
            samples: 5,
            repeats: 2,
        },
    ]
}

/// -mean log σ(β sᵢ (chosen - rejected)) for m sign patterns.
fn losses(tokens: &Tensor, pairs: usize, length: usize, m: usize) -> Result<Vec<Tensor>> {
    let sums = tokens.to_dtype(DType::F64)?.reshape((pairs, 2, length))?.sum(2)?;
    let margin = (sums.narrow(1, 0, 1)? - sums.narrow(1, 1, 1)?)?.squeeze(1)?;
    (0..m)
        .map(|i| {
            let sign = |k: usize| if (k * (i + 3)) % 5 < 2 { -1.0 } else { 1.0 };
            let signs = Tensor::from_vec((0..pairs).map(sign).collect(), pairs, &Device::Cpu)?;
            let t = (&margin * signs)?.affine(-0.02, 0.0)?;
            (t.exp()? + 1.0)?.log()?.mean_all()
        })
        .collect()
}

fn raco_step(model: &Model, batch: &Batch, lengths: [usize; 3], m: usize, optimizer: &mut Optimizer) {
    let log_probs = LogProbs::new(model, batch, TAPE_BYTES).unwrap();
    let losses = losses(log_probs.tokens(), batch.len(), lengths[1], m).unwrap();
    let names = Arc::new((0..m).map(|i| format!("o{i}")).collect());
    let gradients = jacobian(names, &losses, &log_probs).unwrap();
    gradients.gramian().unwrap();
    let direction = gradients.combine(&vec![1.0 / m as f64; m]).unwrap();
    optimizer.step(&direction).unwrap();
}

fn plain_step(oracle: &oracle::Oracle, batch: &Batch, lengths: [usize; 3], m: usize) {
    let tokens = oracle.batch(batch).unwrap();
    let losses = losses(&tokens, batch.len(), lengths[1], m).unwrap();
    let rows = oracle.jacobian(&losses).unwrap();
    let dot = |a: &[Tensor], b: &[Tensor]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| (a * b).unwrap().sum_all().unwrap());
        products.map(|t| f64::from(t.to_scalar::<f32>().unwrap())).sum()
    };
    let h: Vec<f64> = rows.iter().flat_map(|a| rows.iter().map(|b| dot(a, b))).collect();
    assert!(h.iter().all(|x| x.is_finite()));
}

/// CPU and wall time of `f`, in ms, the mean of `repeats` calls: the system counts CPU time in steps of 10 ms.
fn time(repeats: usize, f: &mut dyn FnMut()) -> [f64; 2] {
    let meter = Meter::start();
    (0..repeats).for_each(|_| f());
    [meter.cpu_ms().unwrap_or(f64::NAN), meter.wall_ms()].map(|ms| ms / repeats as f64)
}

fn median(samples: &mut [[f64; 2]], which: usize) -> f64 {
    samples.sort_by(|a, b| a[which].total_cmp(&b[which]));
    samples[samples.len() / 2][which]
}

#[allow(unsafe_code)]
fn main() {
    // as the program does: candle's own thread pool spins at its barriers; with it the plain way looks worse
    // SAFETY: this is the only thread yet.
    unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| arguments.iter().all(|a| a.parse::<usize>().is_ok() || a == name);
    let ms: Vec<usize> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    let ms = if ms.is_empty() { vec![1, 2, 3, 8] } else { ms };
    println!("{} threads", rayon::current_num_threads());
    for shape in shapes().into_iter().filter(|s| wanted(s.name)) {
        let model = random::model(&shape.config, 1);
        let mut rng = random::rng(2);
        let pair = |_| Arc::new(random::pair(&mut rng, shape.config.vocab, shape.lengths, 0));
        let batch = Batch {
            objectives: Arc::new(vec![]),
            examples: (0..shape.pairs).map(pair).collect(),
            reference: None,
            index: 0,
            share_prompt: true,
        };
        let oracle = oracle::Oracle::new(&model, DType::F32);
        let mut products = Products::new(&LogProbs::new(&model, &batch, TAPE_BYTES).unwrap());
        let mut first = f64::NAN;
        for &m in &ms {
            let options = Options { lr: 1e-6, schedule: Schedule::default(), clip: None };
            let mut optimizer = Optimizer::adamw(&model, AdamW::default(), options).unwrap();
            let (mut ours, mut plain, mut bound) = (vec![], vec![], vec![]);
            for round in 0..=shape.samples {
                let o =
                    time(shape.repeats, &mut || raco_step(&model, &batch, shape.lengths, m, &mut optimizer));
                let p = time(shape.repeats, &mut || plain_step(&oracle, &batch, shape.lengths, m));
                let g = time(shape.repeats, &mut || products.run());
                if round > 0 {
                    ours.push(o);
                    plain.push(p);
                    bound.push(g);
                }
            }
            let [cpu, wall] = [median(&mut ours, 0), median(&mut ours, 1)];
            if first.is_nan() {
                first = cpu;
            }
            println!(
                "{:9} m {m}: cpu {cpu:6.1} ms ({:.2} of m = {}), wall {wall:6.1} ms; plain way / raco: cpu {:5.2}, \
                 wall {:5.2}; products {:.2}",
                shape.name,
                cpu / first,
                ms[0],
                median(&mut plain, 0) / cpu,
                median(&mut plain, 1) / wall,
                median(&mut bound, 0) / cpu,
            );
        }
    }
}
