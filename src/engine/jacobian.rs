//! Losses → log-probs → parameters, for all objectives at once.
//!
//! The losses are differentiated by the log-probs on tiny tensors: C = ∂L/∂log π, [m, N]. The rows of a
//! segment's block of C are then written as C = Σ_q u_q v_qᵀ with as few terms Q as they have rank, and the
//! tape is run backward once a term, with the seeds v_q, for all objectives (see [`super::accumulate`]). DPO
//! and every other loss of the difference of two responses has Q = 1.

use std::sync::Arc;

use candle_core::Tensor;

use super::accumulate::{Accumulator, Rows};
use super::gradients::Gradients;
use super::log_probs::LogProbs;
use super::pairs::{Both, Factors, PairGramian, no_pairs, several};
use super::tensor_rows::TensorRows;
use super::unformed::Unformed;
use crate::data::{Packed, Segment};
use crate::error::{Error, Place, Result};
use crate::math::Matrix;
use crate::model::values::values;
use crate::model::{Kernels, Model, ParameterSpace, reserve};

/// A block of cotangents counts as explained when what is left of each row is below this share of the row.
const RANK_TOLERANCE: f64 = 1e-6;

/// Bytes of all rows together from which [`Forming::Auto`] keeps the Gramian alone.
pub const FORMED_BYTES: usize = 4 << 30;

/// Row i is the gradient of `losses[i]`, a scalar of the graph over `log_probs`, by all parameters.
///
/// # Errors
/// Log-probs that are older than the weights; a loss that is not a finite scalar, or whose derivative is not
/// finite; a gradient that is not finite, with the tensor; and, the first time a model is differentiated, a
/// trainable tensor that no objective reaches.
pub fn jacobian(names: Arc<Vec<String>>, losses: &[Tensor], log_probs: &LogProbs) -> Result<Gradients> {
    jacobian_with(names, losses, log_probs, Forming::Auto)
}

/// What one backward leaves of the m rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forming {
    /// As `Formed`, or as `Unformed` where they would take more than [`FORMED_BYTES`] and one backward serves all.
    Auto,
    /// The rows themselves.
    Formed,
    /// Those, and the Gramian of the pairs ([`Gradients::pair_gramian`]).
    Pairs,
    /// The Gramian alone: a combination of the rows takes another backward, and none is formed unless it is asked for.
    Unformed,
}

/// The same, keeping what is asked for.
///
/// # Errors
/// As [`jacobian`]; for [`Forming::Pairs`] and [`Forming::Unformed`] losses that need several backwards, and a batch that was
/// split to fit the memory.
pub fn jacobian_with(
    names: Arc<Vec<String>>,
    losses: &[Tensor],
    log_probs: &LogProbs,
    form: Forming,
) -> Result<Gradients> {
    if !log_probs.is_current() {
        return Err(Error::new("the log-probs are older than the weights: a step was taken since")
            .help("call `policy.log_probs(batch)` again after `optimizer.step`"));
    }
    if losses.is_empty() {
        return Err(Error::new("no loss to differentiate").help("return one loss an objective"));
    }
    let m = losses.len();
    let values =
        names.iter().zip(losses).map(|(name, loss)| scalar(name, loss)).collect::<Result<Vec<f64>>>()?;
    let cotangents =
        names.iter().zip(losses).map(|(n, l)| cotangent(n, l, log_probs)).collect::<Result<Vec<_>>>()?;

    let model = &log_probs.model;
    let space = model.weights().space().clone();
    let mut kept = log_probs.recorded.lock().unwrap_or_else(|p| p.into_inner()).take();
    let mut terms = 1;
    let (mut factors, mut pair_gramian) = (None, None);
    let no_pairs = no_pairs(log_probs);
    let by_pair = no_pairs.is_none();
    let with_pairs = form == Forming::Pairs;
    if let Some(error) = no_pairs.filter(|_| with_pairs || form == Forming::Unformed) {
        return Err(error);
    }
    let large = m > 1 && 4 * m * space.size() > FORMED_BYTES;
    let unformed = form == Forming::Unformed || form == Forming::Auto && large && by_pair;
    let mut rows = None;
    for (i, pack) in log_probs.packs.iter().enumerate() {
        let c: Vec<Vec<f64>> = cotangents.iter().map(|row| log_probs.of_pass(i, row)).collect();
        let mut parts = factor(pack, &c);
        terms = terms.max(parts.len());
        let recorded = match kept.take() {
            Some(kept) => kept,
            None => model.record(pack, log_probs.plan.keep)?.1,
        };
        match &mut parts[..] {
            [part] if by_pair => {
                let found = part.factors(pack, m)?;
                if with_pairs {
                    part.u = found.u.data().iter().map(|&u| u as f32).collect();
                }
                factors = Some(found);
            }
            _ if with_pairs || form == Forming::Unformed => return Err(several(terms)),
            _ => {}
        }
        if let Some(found) = factors.take_if(|_| unformed) {
            let mut pairs = PairGramian::new(&found, &pack.tokens, space.names.len());
            recorded.backward(vec![found.seeds.clone()], &mut pairs)?;
            let rows = Unformed {
                model: model.clone(),
                version: log_probs.version,
                pack: pack.clone(),
                keep: log_probs.plan.keep,
                factors: found,
                pairs: pairs.into_matrices(),
            };
            return checked(Gradients::unformed(names, space, rows, values), &cotangents, model);
        }
        let rows = match &mut rows {
            Some(rows) => rows,
            none => none.insert(rows_of(model, m)?),
        };
        let segments = |scored: bool| {
            let range = |s: &Segment| if scored { s.scored.clone() } else { s.rows.clone() };
            if m == 1 && !with_pairs {
                vec![if scored { 0..pack.targets.len() } else { 0..pack.len() }]
            } else {
                pack.segments.iter().map(range).collect()
            }
        };
        let (seeds, u) = parts.into_iter().map(|part| (part.seeds, part.u)).unzip();
        rows.weigh(u, segments(false), segments(true))?;
        match factors.as_ref().filter(|_| with_pairs) {
            None => recorded.backward(seeds, &mut **rows)?,
            Some(factors) => {
                let mut pairs = PairGramian::new(factors, &pack.tokens, space.names.len());
                recorded.backward(seeds, &mut Both(&mut **rows, &mut pairs))?;
                pair_gramian = Some(pairs.into_matrix());
            }
        }
    }

    let rows = rows.ok_or_else(|| Error::internal("a batch without a pass"))?.finish()?;
    let gradients = Gradients::new(names, space, rows, values, terms)?
        .computed_by(model.kernels())
        .with_pairs(factors, pair_gramian);
    checked(gradients, &cotangents, model)
}

/// The gradients, if all of them are finite and some reach every tensor.
fn checked(gradients: Gradients, cotangents: &[Vec<f64>], model: &Model) -> Result<Gradients> {
    let (h, m) = (gradients.gramian()?, gradients.len());
    if (0..m).any(|i| !h[(i, i)].is_finite()) {
        gradients.check_finite()?;
        return Err(overflow(&gradients)?);
    }
    if cotangents.iter().flatten().any(|&c| c != 0.0) && !model.is_alive() && check_alive(model, &gradients)?
    {
        model.set_alive();
    }
    Ok(gradients)
}

/// Rows of zeros for the gradients of m objectives.
pub(super) fn rows_of(model: &Model, m: usize) -> Result<Box<dyn Rows>> {
    let (space, device) = (model.weights().space().clone(), model.device());
    if device.is_cpu() {
        reserve(&format!("the gradients of {m} objectives"), (4 * m * space.size()) as u64)?;
    }
    Ok(match model.kernels() {
        Kernels::Fused => Box::new(Accumulator::new(space, m)),
        Kernels::Generic => Box::new(TensorRows::new(space, m, &device)?),
    })
}

/// Seeds [N] and row weights [m, K] of one activation backward.
struct Part {
    seeds: Vec<f32>,
    u: Vec<f32>,
}

impl Part {
    /// The same with every pair a segment: with one objective all of them are one, whose weight is 1.
    fn factors(&self, pack: &Packed, m: usize) -> Result<Factors> {
        let k = pack.segments.len();
        let u = if m == 1 { vec![1.0; k] } else { self.u.iter().map(|&u| f64::from(u)).collect() };
        Ok(Factors {
            seeds: self.seeds.clone(),
            u: Matrix::new(m, k, u)?,
            tokens: pack.segments.iter().map(|s| s.rows.clone()).collect(),
            scored: pack.segments.iter().map(|s| s.scored.clone()).collect(),
        })
    }
}

/// C = Σ_q u_q v_qᵀ segment by segment: pivoted Gram-Schmidt on the rows.
fn factor(pack: &Packed, c: &[Vec<f64>]) -> Vec<Part> {
    let (m, k, n) = (c.len(), pack.segments.len(), pack.targets.len());
    if let [row] = c {
        return vec![Part { seeds: row.iter().map(|&x| x as f32).collect(), u: vec![1.0] }];
    }
    let empty = || Part { seeds: vec![0.0; n], u: vec![0.0; m * k] };
    let mut parts = vec![empty()];
    for (segment, scored) in pack.segments.iter().map(|s| s.scored.clone()).enumerate() {
        let mut rest: Vec<Vec<f64>> = c.iter().map(|row| row[scored.clone()].to_vec()).collect();
        let norm = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
        let full: Vec<f64> = rest.iter().map(|row| norm(row)).collect();
        for q in 0..m {
            // the share of each row that is still unexplained decides, so that a small objective counts too
            let share = |i: usize| if full[i] > 0.0 { norm(&rest[i]) / full[i] } else { 0.0 };
            let Some(pivot) = (0..m).max_by(|&a, &b| share(a).total_cmp(&share(b)).then(b.cmp(&a))) else {
                break;
            };
            if share(pivot) <= RANK_TOLERANCE {
                break;
            }
            if parts.len() == q {
                parts.push(empty());
            }
            let top = rest[pivot].iter().fold(0f64, |a, x| a.max(x.abs()));
            let v: Vec<f64> = rest[pivot].iter().map(|x| x / top).collect();
            let square: f64 = v.iter().map(|x| x * x).sum();
            for (i, row) in rest.iter_mut().enumerate() {
                let u = row.iter().zip(&v).map(|(x, v)| x * v).sum::<f64>() / square;
                row.iter_mut().zip(&v).for_each(|(x, v)| *x -= u * v);
                parts[q].u[i * k + segment] = u as f32;
            }
            for (seed, v) in parts[q].seeds[scored.clone()].iter_mut().zip(&v) {
                *seed = *v as f32;
            }
        }
    }
    parts
}

fn scalar(name: &str, loss: &Tensor) -> Result<f64> {
    if loss.elem_count() != 1 {
        return Err(Error::new(format!(
            "loss of `{name}` is a tensor {:?}, expected one number",
            loss.dims()
        ))
        .help("end the loss with `batch.mean(name, values)` or `mean(values)`"));
    }
    let value = loss.flatten_all()?.to_vec1::<f64>()?[0];
    if !value.is_finite() {
        return Err(Error::new(format!("loss of `{name}` is `{value}`"))
            .help("lower the learning rate or beta, or look for a logarithm or a division in the loss"));
    }
    Ok(value)
}

/// ∂loss/∂log π, [N]; zeros for a loss that does not depend on it.
fn cotangent(name: &str, loss: &Tensor, log_probs: &LogProbs) -> Result<Vec<f64>> {
    let gradients = loss.backward()?;
    let row = match gradients.get(log_probs.tokens()) {
        Some(row) => values::<f64>(&row.contiguous()?)?.to_vec(),
        None => vec![0.0; log_probs.tokens().elem_count()],
    };
    match row.iter().position(|x| !x.is_finite()) {
        None => Ok(row),
        Some(token) => Err(Error::new(format!(
            "the derivative of the loss of `{name}` by log-prob {token} is `{}`",
            row[token]
        ))
        .help("the loss is finite but its slope is not: look for a root or logarithm at 0")),
    }
}

/// A gradient whose numbers are finite and whose squared norm is not.
fn overflow(gradients: &Gradients) -> Result<Error> {
    let error = |what: &str| {
        Error::new(format!("the squared norm of {what} overflows")).help("scale the losses down")
    };
    let space: &ParameterSpace = gradients.space();
    for (tensor, name) in space.names.iter().enumerate() {
        let h = gradients.tensor_gramian(tensor)?;
        if let Some(i) = (0..gradients.len()).find(|&i| !h[(i, i)].is_finite()) {
            let objective = &gradients.names()[i];
            return Ok(error(&format!("the gradient of `{objective}`")).at(Place::Tensor(name.clone())));
        }
    }
    Ok(error("a gradient"))
}

/// Every tensor must matter to some objective, otherwise the graph is cut somewhere. False if that cannot be said
/// yet: an adapter's A has no gradient while its B is zero.
fn check_alive(model: &Model, gradients: &Gradients) -> Result<bool> {
    let space: &ParameterSpace = gradients.space();
    let weights = model.weights();
    let mut all = true;
    for (i, name) in space.names.iter().enumerate() {
        if model.adapter().is_some_and(|adapter| adapter.is_out_of_reach(&weights, i)) {
            all = false;
            continue;
        }
        let h = gradients.tensor_gramian(i)?;
        if (0..gradients.len()).all(|i| h[(i, i)] == 0.0) {
            return Err(Error::new("the gradient of every objective is zero for a trainable tensor")
                .at(Place::Tensor(name.clone()))
                .help(
                    "check that the model's weights are not zero, and that the batch has more than one token",
                ));
        }
    }
    Ok(all)
}
