//! Batched generation with a key-value cache: ragged prompts, no padding; sequences that have ended leave the
//! batch.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::decoder::{check, hidden, logits};
use super::generic::KeyValues;
use super::layout::Layout;
use super::ops::cache::Cache;
use super::ops::simd::{dispatch, exp};
use super::pass::{Mode, Pass};
use super::values::{host, values};
use super::{Kernels, Model, Parts};
use crate::data::Span;
use crate::error::{Error, Result};

/// Bytes of keys and values that are held at once; more prompts than fit are taken in several waves.
const CACHE_BYTES: usize = 512 << 20;

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token (greedy).
    pub temperature: f64,
    /// Tokens are drawn from the fewest most likely ones whose probabilities reach it, in (0, 1].
    pub top_p: f64,
    /// Longest response, in tokens, the end token included.
    pub max_new_tokens: usize,
    /// Each sequence draws from a stream of its own, given by the seed and its index.
    pub seed: u64,
    /// Index of the first prompt: several calls then draw what one would have drawn.
    pub first_index: u64,
    /// Tokens that end a response.
    pub stop_tokens: Vec<u32>,
}

impl Sampling {
    /// Greedy, up to `max_new_tokens`, ended by the model's own end tokens.
    pub fn greedy(model: &Model, max_new_tokens: usize) -> Self {
        let stop_tokens = model.config().stop_tokens.clone();
        Self { temperature: 0.0, top_p: 1.0, max_new_tokens, seed: 0, first_index: 0, stop_tokens }
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: String, help: &str| Err(Error::new(what).help(help));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            let what = format!("temperature must be at least 0, found `{}`", self.temperature);
            return refuse(what, "use 0 for greedy generation, 1 to sample from the model itself");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            let what = format!("top_p must be in (0, 1], found `{}`", self.top_p);
            return refuse(what, "use 1 to draw from all tokens");
        }
        if self.max_new_tokens == 0 {
            return refuse("max_new_tokens must be at least 1, found `0`".into(), "ask for a token or more");
        }
        Ok(())
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Tokens after the prompt, with the end token where there was one.
    pub tokens: Vec<u32>,
    /// True if an end token came, false if the room ran out.
    pub ended: bool,
}

/// A sequence on its way.
struct Sequence {
    index: usize,
    prompt: usize,
    room: usize,
    rng: ChaCha8Rng,
    cache: Vec<Cache>,       // [layer], of the fused kernels
    tensors: Vec<KeyValues>, // [layer], of the generic ones
    out: Generation,
}

impl Model {
    /// One response for each prompt, in order. What a prompt gets depends on the weights, the prompt, the
    /// sampling and its index, not on the other prompts; but a product with a single row may round differently
    /// from one with several, which now and then turns a near tie in a wide model.
    ///
    /// A response ends with a stop token, after `max_new_tokens`, or where the model's context is full.
    /// `interrupted` is asked before each token.
    ///
    /// # Errors
    /// Sampling out of range, a prompt that is empty or leaves no room in the context, a token outside the
    /// vocabulary, logits that are not finite, an interruption.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        sampling: &Sampling,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Generation>> {
        sampling.check()?;
        for (index, prompt) in prompts.iter().enumerate() {
            check_prompt(prompt, self.config().context)
                .and_then(|()| check(self.config(), prompt, &[]))
                .map_err(|e| Error::new(format!("prompt {index}: {}", e.what())).help(help_of(&e)))?;
        }
        let room = |prompt: &[u32]| sampling.max_new_tokens.min(self.config().context - prompt.len());
        let cost = |prompt: &[u32]| self.cache_bytes_per_token() * (prompt.len() + room(prompt) - 1);
        let mut generations = Vec::with_capacity(prompts.len());
        while generations.len() < prompts.len() {
            let first = generations.len();
            let mut bytes = 0;
            let fitting = prompts[first..].iter().take_while(|prompt| {
                bytes += cost(prompt);
                bytes <= CACHE_BYTES
            });
            let wave = &prompts[first..first + fitting.count().max(1)];
            let sequences = wave.iter().enumerate().map(|(i, prompt)| {
                let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
                rng.set_stream(sampling.first_index + (first + i) as u64);
                let room = room(prompt);
                let out = Generation { tokens: Vec::with_capacity(room), ended: false };
                let (cache, tensors) = (Vec::new(), Vec::new());
                Sequence { index: first + i, prompt: prompt.len(), room, rng, cache, tensors, out }
            });
            generations.extend(self.wave(wave, sequences.collect(), sampling, interrupted)?);
        }
        Ok(generations)
    }

    fn cache_bytes_per_token(&self) -> usize {
        let config = self.config();
        2 * size_of::<f32>() * config.layers * config.kv_heads * config.head_dim
    }

    /// Prompts whose caches are held together, run to their ends.
    fn wave(
        &self,
        prompts: &[Vec<u32>],
        mut active: Vec<Sequence>,
        sampling: &Sampling,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Generation>> {
        let (config, parts, layout) = (self.config(), self.parts(), Layout::new(self.config()));
        let mut done = Vec::with_capacity(prompts.len());
        let mut rows = {
            stop(interrupted)?;
            let tokens = prompts.concat();
            let positions: Vec<u32> = prompts.iter().flat_map(|p| 0..p.len() as u32).collect();
            let mut ends = Vec::with_capacity(prompts.len());
            let groups = prompts.iter().scan(0, |start, prompt| {
                let rows = *start..*start + prompt.len();
                *start = rows.end;
                ends.push(rows.end as u32 - 1);
                Some(vec![Span { rows, prefix: 0..0 }])
            });
            let attention = self.attention(groups.collect(), positions);
            let (heads, mut caches) = (attention.heads, Vec::<Vec<Cache>>::new());
            let positions = |s: &Sequence| s.prompt + s.room - 1;
            let mode = match self.kernels() {
                Kernels::Fused => {
                    let cache = |s| vec![Cache::new(heads, positions(s)); config.layers];
                    caches.extend(active.iter().map(cache));
                    Mode::Prefill(attention, &mut caches)
                }
                Kernels::Generic => {
                    let device = self.device();
                    for s in &mut active {
                        let room = positions(s);
                        let layer = |_| KeyValues::new(heads, room, &device);
                        s.tensors = (0..config.layers).map(layer).collect::<Result<_>>()?;
                    }
                    Mode::Grow(attention, active.iter_mut().map(|s| &mut s.tensors).collect())
                }
            };
            let mut pass = Pass::new(&parts, config, mode, false);
            let x = hidden(&mut pass, config, &layout, &tokens, Some(&ends))?;
            let rows = logits(&mut pass, &layout, &x)?;
            for (sequence, cache) in active.iter_mut().zip(caches) {
                sequence.cache = cache;
            }
            rows
        };
        loop {
            {
                let rows = host(&rows)?;
                let rows = values::<f32>(&rows)?;
                let draw = |(sequence, logits): (&mut Sequence, &[f32])| -> Result<()> {
                    check_finite(logits, sequence, &parts)?;
                    let token = sample(logits, sampling, &mut sequence.rng);
                    sequence.out.tokens.push(token);
                    sequence.out.ended = sampling.stop_tokens.contains(&token);
                    Ok(())
                };
                active
                    .par_iter_mut()
                    .zip(rows.par_chunks_exact(config.vocab))
                    .map(draw)
                    .collect::<Result<()>>()?;
            }
            done.extend(active.extract_if(.., |s| s.out.ended || s.out.tokens.len() == s.room));
            if active.is_empty() {
                done.sort_unstable_by_key(|s: &Sequence| s.index);
                return Ok(done.into_iter().map(|s| s.out).collect());
            }
            stop(interrupted)?;
            let tokens: Vec<u32> = active.iter().filter_map(|s| s.out.tokens.last().copied()).collect();
            let positions = active.iter().map(|s| (s.prompt + s.out.tokens.len() - 1) as u32).collect();
            let mode = match self.kernels() {
                Kernels::Fused => {
                    let caches = active.iter_mut().map(|s| &mut s.cache).collect();
                    Mode::Decode(self.attention(Vec::new(), positions), caches)
                }
                Kernels::Generic => {
                    let each = |row| vec![Span { rows: row..row + 1, prefix: 0..0 }];
                    let groups = (0..tokens.len()).map(each).collect();
                    let caches = active.iter_mut().map(|s| &mut s.tensors).collect();
                    Mode::Grow(self.attention(groups, positions), caches)
                }
            };
            let mut pass = Pass::new(&parts, config, mode, false);
            let x = hidden(&mut pass, config, &layout, &tokens, None)?;
            rows = logits(&mut pass, &layout, &x)?;
        }
    }
}

fn stop(interrupted: &dyn Fn() -> bool) -> Result<()> {
    if interrupted() { Err(Error::interrupted("stopped while generating")) } else { Ok(()) }
}

fn help_of(error: &Error) -> &str {
    error.help_text().unwrap_or("check the prompt")
}

fn check_prompt(prompt: &[u32], context: usize) -> Result<()> {
    if prompt.is_empty() {
        return Err(Error::new("has no tokens")
            .help("give the prompt at least one token, for example the begin-of-text token"));
    }
    if prompt.len() >= context {
        return Err(Error::new(format!(
            "has {} tokens, which leaves no room in the model's context of {context}",
            prompt.len()
        ))
        .help("shorten the prompt, or take a model with a longer context"));
    }
    Ok(())
}

fn check_finite(logits: &[f32], sequence: &Sequence, parts: &Parts) -> Result<()> {
    if logits.iter().all(|x| x.is_finite()) {
        return Ok(());
    }
    let (index, n) = (sequence.index, sequence.out.tokens.len());
    let error = Error::new(format!("logits of prompt {index} are not finite at token {n} of the response"));
    Err(parts.blame(error))
}

/// A token drawn from softmax(logits / temperature), cut to its nucleus.
fn sample(logits: &[f32], sampling: &Sampling, rng: &mut impl Rng) -> u32 {
    let (best, top) = logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (i, &x)| if x > best.1 { (i, x) } else { best });
    if sampling.temperature == 0.0 {
        return best as u32;
    }
    let scale = 1.0 / sampling.temperature as f32;
    let mut weights = logits.to_vec();
    dispatch(
        #[inline(always)]
        || weights.iter_mut().for_each(|x| *x = exp((*x - top) * scale)),
    );
    let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
    if sampling.top_p == 1.0 {
        return draw(weights.iter().map(|&w| f64::from(w)).enumerate(), total, rng).unwrap_or(best) as u32;
    }
    let nucleus = nucleus(&weights, total, sampling.top_p);
    let mass = nucleus.iter().map(|&(_, w)| w).sum();
    draw(nucleus.into_iter(), mass, rng).unwrap_or(best) as u32
}

/// The tokens kept by top-p, most likely first: those before which less than `top_p` of the mass comes. With
/// equal weights the smaller id comes first.
fn nucleus(weights: &[f32], total: f64, top_p: f64) -> Vec<(usize, f64)> {
    // all tokens below the floor together have less than 1 - top_p of the mass, so none of them is kept
    let floor = (1.0 - top_p) * total / weights.len() as f64;
    let mut kept: Vec<(usize, f64)> =
        weights.iter().map(|&w| f64::from(w)).enumerate().filter(|&(_, w)| w >= floor).collect();
    kept.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut before = 0.0;
    kept.retain(|&(_, w)| {
        let keep = before < top_p * total;
        before += w;
        keep
    });
    kept
}

/// An index with probability weight / total; the last one of weight above 0 where rounding leaves a rest.
fn draw(weights: impl Iterator<Item = (usize, f64)>, total: f64, rng: &mut impl Rng) -> Option<usize> {
    let mut rest = rng.random::<f64>() * total;
    let mut last = None;
    for (index, weight) in weights.filter(|&(_, w)| w > 0.0) {
        last = Some(index);
        rest -= weight;
        if rest < 0.0 {
            break;
        }
    }
    last
}
