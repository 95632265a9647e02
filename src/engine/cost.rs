//! What a step costs, from shapes alone: operations and bytes by phase, memory by part.
//!
//! A product of `rows` rows, y = x Wᵀ from `inputs` to `outputs` numbers, takes 2 · rows · inputs · outputs operations
//! forward, as many for dx = dy W, and as many for dW = dyᵀ x. Equations and what was measured: docs/scaling.md.

use std::iter::Sum;
use std::ops::Add;

use crate::data::Packed;
use crate::error::{Error, Result};
use crate::model::ops::attention::scores;
use crate::model::ops::head;
use crate::model::{Config, Family, Keep, Layout, Model, parameters, show_bytes};

/// Bytes of a number.
const F32: usize = 4;
/// Queries of one block of attention, whose scores are held at once.
const QUERIES: usize = 64;
/// Bytes of packed panels of matrix products, and of code that runs for the first time, as measured.
const PROGRAM: usize = 3 << 20;
/// Rows of a product that take as long as writing or reading its tile once.
const ROWS_OF_A_TILE: usize = 2;
/// Operations that an exponential counts for.
const EXPONENTIAL: f64 = 40.0;

/// What the cost of packed rows depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Token rows T.
    pub rows: usize,
    /// Scored positions N.
    pub scored: usize,
    /// Segments K: pairs, where the responses of a pair share its prompt.
    pub segments: usize,
    /// Scores that one head computes in a global layer, and in a local one.
    pub scores: [usize; 2],
    /// Rows of the longest group, whose scores with one block of queries are held at once.
    pub longest: usize,
}

impl Shape {
    /// That of packed rows under a model.
    pub fn new(config: &Config, packed: &Packed) -> Self {
        let window = config.local.as_ref().map_or(usize::MAX, |local| local.window);
        let all = |window| packed.groups.iter().map(|spans| scores(spans, window)).sum();
        let longest = packed.segments.iter().map(|segment| segment.rows.len()).max();
        Self {
            rows: packed.len(),
            scored: packed.targets.len(),
            segments: packed.segments.len(),
            scores: [all(usize::MAX), all(window)],
            longest: longest.unwrap_or(0),
        }
    }
}

impl Add for Shape {
    type Output = Self;

    /// Both in one pass.
    fn add(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            scored: self.scored + other.scored,
            segments: self.segments + other.segments,
            scores: [self.scores[0] + other.scores[0], self.scores[1] + other.scores[1]],
            longest: self.longest.max(other.longest),
        }
    }
}

impl Sum for Shape {
    fn sum<I: Iterator<Item = Self>>(shapes: I) -> Self {
        shapes.fold(Self::default(), Add::add)
    }
}

/// A matrix product of the forward, with what of it the backward computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// Rows of x.
    pub rows: usize,
    /// Width of x.
    pub inputs: usize,
    /// Width of y.
    pub outputs: usize,
    /// How often y = x Wᵀ is computed.
    pub forwards: usize,
    /// dx = dy W is computed.
    pub wanted: bool,
    /// dW = dyᵀ x is computed.
    pub trained: bool,
    /// The product of the head.
    pub head: bool,
}

impl Product {
    /// Operations of y = x Wᵀ, as of dx and of dW.
    pub fn unit(&self) -> f64 {
        2.0 * (self.rows * self.inputs) as f64 * self.outputs as f64
    }

    /// Operations of forward and backward.
    pub fn flops(&self) -> f64 {
        self.unit() * (self.forwards + usize::from(self.wanted) + usize::from(self.trained)) as f64
    }

    /// Bytes of x, W and y, each once.
    fn bytes(&self) -> f64 {
        (F32 * (self.rows * (self.inputs + self.outputs) + self.inputs * self.outputs)) as f64
    }
}

/// Operations and bytes of one phase; the longer of computing and moving decides its time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Floating point operations.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(works: I) -> Self {
        works.fold(Self::default(), Add::add)
    }
}

/// How often parts of the forward run in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    /// Layers.
    pub layers: usize,
    /// The head.
    pub head: usize,
    /// Logits that are few stay for the backward, which otherwise computes them once more.
    pub keep_logits: bool,
}

impl Runs {
    /// Once, and once more where the batch is split (all of it is scored before the first backward), and once more
    /// where a layer keeps its input alone.
    pub fn new(keep: Keep, passes: usize) -> Self {
        let again = usize::from(passes > 1);
        let layers = 1 + again + usize::from(keep == Keep::Inputs);
        Self { layers, head: 1 + again, keep_logits: keep == Keep::Everything }
    }
}

/// What moves the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moments {
    /// Plain descent.
    None,
    /// Momentum.
    One,
    /// AdamW.
    Two,
}

/// Bytes that a training step holds, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Weights of the decoder and of its adapter.
    pub weights: usize,
    /// Weights of the frozen reference, once the policy's have moved; an adapter shares its decoder with it.
    pub reference: usize,
    /// The rows of the Jacobian, m · 4 · P.
    pub gradients: usize,
    /// The combined update, 4 · P.
    pub update: usize,
    /// State of the optimiser.
    pub optimizer: usize,
    /// What a pass keeps for its backward.
    pub tape: usize,
    /// What a backward needs beside the tape: a block of logits, scores of attention, gradients of activations.
    pub workspace: usize,
    /// What the program itself takes.
    pub program: usize,
}

impl Memory {
    /// All of it, and a 32nd that the program's allocator may keep beyond what was at most in use.
    pub fn total(&self) -> usize {
        let held = self.weights + self.reference + self.gradients + self.optimizer;
        let used = held + self.passing() + self.program;
        used + used / 32
    }

    /// What a step holds for a while: tape and workspace, and in their place the update.
    fn passing(&self) -> usize {
        self.update.max(self.tape + self.workspace)
    }

    /// Refuses what cannot fit; `available` is `None` where the system does not tell, `resident` what of it is held
    /// already.
    ///
    /// # Errors
    /// More is needed than is available.
    pub fn check(&self, resident: usize, available: Option<u64>) -> Result<()> {
        let needed = self.total().saturating_sub(resident) as u64;
        let Some(available) = available.filter(|&available| needed > available) else { return Ok(()) };
        Err(Error::new(format!(
            "the weights take {}, the gradients of the objectives {}, the optimiser {}, the passes {}, and {} of \
             memory are available",
            show_bytes(self.weights),
            show_bytes(self.gradients),
            show_bytes(self.optimizer),
            show_bytes(self.passing()),
            show_bytes(resident + available as usize),
        ))
        .help(
            "train an adapter instead of all weights, give the passes less `memory`, choose a smaller model, or free \
             some memory",
        ))
    }
}

/// The cost of passes over one model.
#[derive(Debug)]
pub struct Costs<'a> {
    config: &'a Config,
    layers: Vec<Layer>,
    /// Rank of the adapter, if there is one.
    rank: Option<usize>,
    decoder: usize,
    trained: usize,
}

/// A layer; an activation is alive where it depends on something that is trained.
#[derive(Debug)]
struct Layer {
    local: bool,
    /// Its input is alive.
    alive: bool,
    /// q, k, v; o; gate, up; down.
    groups: [Group; 4],
}

/// Linear maps of one input.
#[derive(Debug)]
struct Group {
    inputs: usize,
    /// Width of the output, and whether an adapter is on it.
    outputs: Vec<(usize, bool)>,
    /// The input is alive.
    alive: bool,
}

impl Group {
    fn width(&self) -> usize {
        self.outputs.iter().map(|(width, _)| width).sum()
    }

    fn adapters(&self) -> usize {
        self.outputs.iter().filter(|(_, adapted)| *adapted).count()
    }
}

impl<'a> Costs<'a> {
    /// Those of an architecture whose weights are all trained or, with an `adapter` (its rank, and the parameters that
    /// carry it), of the adapter alone.
    pub fn new(config: &'a Config, adapter: Option<(usize, &[usize])>) -> Self {
        let (hidden, inner) = (config.hidden, config.intermediate);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let decoder = parameters(config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        let (mut alive, mut trained) = (adapter.is_none(), 0);
        let mut layers = Vec::with_capacity(config.layers);
        for (i, l) in Layout::new(config).layers.iter().enumerate() {
            let mut layer = Layer {
                local: config.local.as_ref().is_some_and(|local| local.layers[i]),
                alive,
                groups: [
                    (hidden, vec![(l.q, q), (l.k, kv), (l.v, kv)]),
                    (q, vec![(l.o, hidden)]),
                    (hidden, vec![(l.gate, inner), (l.up, inner)]),
                    (inner, vec![(l.down, hidden)]),
                ]
                .map(|(inputs, outputs)| {
                    let adapted = |p| adapter.is_some_and(|(_, adapted)| adapted.contains(&p));
                    let outputs = outputs.into_iter().map(|(p, width)| (width, adapted(p))).collect();
                    Group { inputs, outputs, alive: false }
                }),
            };
            for group in &mut layer.groups {
                group.alive = alive;
                alive |= group.adapters() > 0;
                let numbers = group.outputs.iter().filter(|(_, adapted)| *adapted);
                trained += numbers.map(|(width, _)| group.inputs + width).sum::<usize>();
            }
            layers.push(layer);
        }
        let rank = adapter.map(|(rank, _)| rank);
        let trained = rank.map_or(decoder, |rank| rank * trained);
        Self { config, layers, rank, decoder, trained }
    }

    /// Those of a model as it is trained.
    pub fn of(model: &'a Model) -> Self {
        let adapter = model.adapter().map(|adapter| (adapter.lora().rank, adapter.parameters()));
        Self::new(model.config(), adapter.as_ref().map(|(rank, adapted)| (*rank, &adapted[..])))
    }

    /// Numbers of the decoder.
    pub fn decoder(&self) -> usize {
        self.decoder
    }

    /// Numbers P that are trained.
    pub fn trained(&self) -> usize {
        self.trained
    }

    /// Rows that a layer works on after its attention: in the last one those that predict something.
    fn rows_after(&self, layer: usize, shape: Shape) -> usize {
        if layer + 1 == self.layers.len() { shape.scored } else { shape.rows }
    }

    /// Rows of each of a layer's groups of maps.
    fn rows(&self, layer: usize, shape: Shape) -> [usize; 4] {
        let after = self.rows_after(layer, shape);
        [shape.rows, after, after, after]
    }

    /// The products of a step with one objective, in the order of the forward; attention is not among them.
    pub fn products(&self, shape: Shape, runs: Runs) -> Vec<Product> {
        let full = self.rank.is_none();
        let mut products = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            for (group, rows) in layer.groups.iter().zip(self.rows(i, shape)) {
                let forwards = runs.layers;
                let (inputs, wanted) = (group.inputs, group.alive);
                for &(outputs, adapted) in &group.outputs {
                    products.push(Product {
                        rows,
                        inputs,
                        outputs,
                        forwards,
                        wanted,
                        trained: full,
                        head: false,
                    });
                    if let Some(rank) = self.rank.filter(|_| adapted) {
                        let low = Product { outputs: rank, trained: true, ..products[products.len() - 1] };
                        products.push(low);
                        products.push(Product { inputs: rank, outputs, wanted: true, ..low });
                    }
                }
            }
        }
        let (inputs, outputs) = (self.config.hidden, self.config.vocab);
        let kept = runs.keep_logits && head::keeps(shape.scored, outputs);
        let forwards = runs.head + usize::from(!kept);
        let head = Product {
            rows: shape.scored,
            inputs,
            outputs,
            forwards,
            wanted: true,
            trained: full,
            head: true,
        };
        products.push(head);
        products
    }

    /// What each phase of a step takes for a batch in passes of these shapes, for m objectives.
    pub fn phases(&self, passes: &[Shape], keep: Keep, m: usize, moments: Moments) -> Phases {
        let runs = Runs::new(keep, passes.len());
        let mut all = Phases { update: self.update(m, moments), ..Phases::default() };
        for &shape in passes {
            for product in self.products(shape, runs) {
                let work = |times: usize| Work {
                    flops: times as f64 * product.unit(),
                    bytes: times as f64 * product.bytes(),
                };
                let (wanted, trained) = (usize::from(product.wanted), usize::from(product.trained));
                if product.head {
                    all.head = all.head + work(product.forwards + wanted + trained);
                } else {
                    all.forward = all.forward + work(product.forwards);
                    all.activations = all.activations + work(wanted);
                    all.weights = all.weights + work(trained);
                }
                if product.trained {
                    all.combination = all.combination + combination(product, shape.segments, m);
                }
            }
            all.attention = all.attention + self.attention(shape, runs);
            all.elementwise = all.elementwise + self.elementwise(shape, runs);
        }
        all
    }

    /// Scores and their use: 2 products forward, 5 backward.
    fn attention(&self, shape: Shape, runs: Runs) -> Work {
        let Config { heads, head_dim, .. } = *self.config;
        let layer = |layer: &Layer| {
            let scores = (heads * shape.scores[usize::from(layer.local)]) as f64;
            let backward = if layer.groups[1].alive { 5 } else { 0 };
            let products = (2 * runs.layers + backward) as f64;
            Work { flops: 2.0 * products * scores * head_dim as f64, bytes: 0.0 }
        };
        self.layers.iter().map(layer).sum()
    }

    /// Numbers that norms, sums, gates, attention and the softmax of the head read and write, and their exponentials.
    fn elementwise(&self, shape: Shape, runs: Runs) -> Work {
        let Config { heads, kv_heads, head_dim, hidden, intermediate, vocab, .. } = *self.config;
        let (queries, stride) = (heads * head_dim, (heads + 2 * kv_heads) * head_dim);
        let norms = if self.config.family == Family::Gemma3 { 4 } else { 2 };
        let heads_too = usize::from(self.config.family != Family::Llama);
        let (mut numbers, mut exponentials) = (0, 0);
        for (i, layer) in self.layers.iter().enumerate() {
            let (rows, after) = (shape.rows, self.rows_after(i, shape));
            let scores = heads * shape.scores[usize::from(layer.local)];
            let backward = usize::from(layer.groups[1].alive);
            // forward: a norm copies and scales; a product adds onto a copy or, where a norm comes between, a sum does
            let sums = if self.config.family == Family::Gemma3 { 10 } else { 4 };
            let forward = rows * ((4 * norms + sums) * hidden + heads_too * 4 * stride + 6 * queries)
                + after * 4 * intermediate
                + 6 * scores;
            // backward: the same on gradients, which meet at two sums; norms and gates are computed again
            let back = rows * (11 * norms * hidden + 10 * hidden + heads_too * 11 * stride)
                + rows * (6 * stride + 2 * queries)
                + after * 11 * intermediate
                + 10 * scores;
            numbers += runs.layers * forward + backward * back;
            exponentials += runs.layers * (scores + after * intermediate);
            exponentials += backward * (scores + 2 * after * intermediate);
        }
        let logits = shape.scored * vocab;
        numbers += logits * (3 * runs.head + 3);
        exponentials += logits * (runs.head + 1);
        Work { flops: EXPONENTIAL * exponentials as f64, bytes: (F32 * numbers) as f64 }
    }

    /// Gramian, combination of the rows and the optimiser: each reads what it needs once.
    fn update(&self, m: usize, moments: Moments) -> Work {
        let p = self.trained as f64;
        let rows = m as f64;
        let vectors = match moments {
            Moments::None => 5.0,
            Moments::One => 7.0,
            Moments::Two => 9.0,
        };
        // rows: cleared, met for the first time, read for the Gramian and for the combination, which is written
        let numbers = p * (4.0 * rows + 2.0 + vectors);
        Work { flops: p * rows * (rows + 3.0), bytes: F32 as f64 * numbers }
    }

    /// Bytes that one pass keeps for its backward.
    pub fn tape(&self, shape: Shape, keep: Keep) -> usize {
        let layers = (0..self.layers.len()).map(|i| self.layer_tape(i, shape));
        let tail = shape.scored * (self.config.hidden + 2);
        let vocab = self.config.vocab;
        let logits = if head::keeps(shape.scored, vocab) { shape.scored * vocab } else { 0 };
        let numbers: usize = match keep {
            Keep::Everything => layers.sum::<usize>() + logits,
            Keep::Layers => layers.sum(),
            Keep::Inputs => {
                let sections = self.layers.iter().filter(|layer| layer.alive || self.trains(layer)).count();
                sections * shape.rows * self.config.hidden + layers.max().unwrap_or(0)
            }
        };
        F32 * (numbers + tail)
    }

    fn trains(&self, layer: &Layer) -> bool {
        self.rank.is_none() || layer.groups.iter().any(|group| group.adapters() > 0)
    }

    /// Numbers that a layer leaves on a tape.
    fn layer_tape(&self, i: usize, shape: Shape) -> usize {
        let Config { family, heads, kv_heads, hidden, intermediate, .. } = *self.config;
        let layer = &self.layers[i];
        let [qkv, o, gate_up, down] = &layer.groups;
        let [rows, _, after, _] = self.rows(i, shape);
        // a product needs its input where something of it is trained, and keeps it where a norm or a gate before it has
        // nothing on the tape to compute it from
        let kept = |group: &Group| self.rank.is_none() || group.adapters() > 0;
        let low = |group: &Group| group.adapters() * self.rank.unwrap_or(0);
        let (alive, later) = (usize::from(o.alive), usize::from(gate_up.alive));
        let at_input = match layer.alive {
            true => hidden + 1,
            false if kept(qkv) => hidden,
            false => 0,
        } + low(qkv);
        let head_norms = if family == Family::Llama { 0 } else { heads + kv_heads };
        let attention = qkv.width() + heads;
        let at_output = if o.alive || kept(o) { o.inputs } else { 0 } + low(o);
        let post_norm = if family == Family::Gemma3 { hidden + 1 } else { 0 };
        let mlp = later * (hidden + 1 + 2 * intermediate + post_norm)
            + if kept(gate_up) && !gate_up.alive { hidden } else { 0 }
            + if kept(down) && !down.alive { intermediate } else { 0 }
            + low(gate_up)
            + low(down);
        // the last layer copies what it reads of its attention
        let copied = if i + 1 == self.layers.len() { after * at_output } else { 0 };
        rows * (at_input + alive * (head_norms + attention) + at_output)
            + copied
            + after * (later * post_norm + mlp)
    }

    /// Bytes that a pass takes beside its tape: of the head, or of the gated layer and the residual.
    pub fn workspace(&self, shape: Shape, keep: Keep) -> usize {
        let Config { head_dim, hidden, intermediate, vocab, .. } = *self.config;
        let head = shape.scored * (head::block(shape.scored, vocab).min(vocab) + 2 * hidden);
        // the tape is fullest at the last layer, unless it holds one layer at a time
        let rows = match keep {
            Keep::Inputs => shape.rows,
            _ => self.rows_after(self.layers.len().saturating_sub(1), shape),
        };
        let layer = 2 * shape.rows * hidden + 3 * rows * intermediate;
        let attention = shape.longest * (2 * QUERIES + 3 * head_dim);
        F32 * (head.max(layer) + attention)
    }

    /// Bytes of a pass: its tape and its workspace.
    pub fn pass(&self, shape: Shape, keep: Keep) -> usize {
        self.tape(shape, keep) + self.workspace(shape, keep)
    }

    /// What a training step holds for passes of these shapes; the weights of the decoder take `decoder` bytes.
    pub fn memory(&self, passes: &[Shape], keep: Keep, m: usize, moments: Moments, decoder: usize) -> Memory {
        let vector = F32 * self.trained;
        let largest = passes.iter().max_by_key(|&&shape| self.pass(shape, keep)).copied().unwrap_or_default();
        let states = match moments {
            Moments::None => 0,
            Moments::One => 1,
            Moments::Two => 2,
        };
        Memory {
            weights: decoder + if self.rank.is_none() { 0 } else { vector },
            reference: if self.rank.is_none() { decoder } else { 0 },
            gradients: m * vector,
            update: vector,
            optimizer: states * vector,
            tape: self.tape(largest, keep),
            workspace: self.workspace(largest, keep),
            program: PROGRAM,
        }
    }
}

/// True if the gradients of one weight by m objectives cost less as m products, of rows weighed by each objective, than as
/// a product a segment and m combinations of those; `rows` in all. Gradients that are not formed take neither:
/// [`super::jacobian::Forming`].
///
/// The first are m - 1 products too many, the others K tiles written and read for m sums; they break even at segments of a
/// few rows, whatever the width (docs/performance.md).
pub(super) fn weighs_rows(rows: usize, segments: usize, m: usize) -> bool {
    (m - 1) * rows < ROWS_OF_A_TILE * segments * (m + 2)
}

/// Combinations of one weight: gᵢ += Σₖ U[i,k] hₖ, eight segments at a time, or further products. One objective needs
/// none. What is written to and read from the tile of an hₖ stays in cache and counts a third.
fn combination(product: Product, segments: usize, m: usize) -> Work {
    if m == 1 {
        return Work::default();
    }
    if weighs_rows(product.rows, segments, m) {
        let more = (m - 1) as f64;
        return Work { flops: more * product.unit(), bytes: more * product.bytes() };
    }
    let weight = (product.inputs * product.outputs) as f64;
    let (k, m) = (segments as f64, m as f64);
    let numbers = weight * (k * (2.0 + m) / 3.0 + 2.0 * m * (k / 8.0).ceil());
    Work { flops: 2.0 * k * m * weight, bytes: F32 as f64 * numbers }
}

/// The phases of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Phases {
    /// Products of the layers, forward, as often as they run.
    pub forward: Work,
    /// Gradients of the layers' activations.
    pub activations: Work,
    /// Gradients of the layers' weights.
    pub weights: Work,
    /// The head, forward and backward.
    pub head: Work,
    /// Scores of attention and their use.
    pub attention: Work,
    /// Everything between products.
    pub elementwise: Work,
    /// m combinations of the segments' gradients.
    pub combination: Work,
    /// Gramian, update and optimiser.
    pub update: Work,
}

impl Phases {
    /// All of them by name.
    pub fn all(&self) -> [(&'static str, Work); 8] {
        [
            ("forward", self.forward),
            ("activations", self.activations),
            ("weights", self.weights),
            ("head", self.head),
            ("attention", self.attention),
            ("elementwise", self.elementwise),
            ("combination", self.combination),
            ("update", self.update),
        ]
    }

    /// Operations of all phases.
    pub fn flops(&self) -> f64 {
        self.all().iter().map(|(_, work)| work.flops).sum()
    }
}
