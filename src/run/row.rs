//! What one step leaves in the log.

use serde_json::{Map, Value, json};

use crate::data::Batch;
use crate::engine::Gradients;
use crate::error::{Error, Result};
use crate::math::Matrix;
use crate::optim::StepReport;

/// The parts of a row; absent ones give no column.
pub struct StepRow<'a> {
    /// The gradients of the step, with their losses and names.
    pub gradients: &'a Gradients,
    /// Their Gramian, [m, m].
    pub gramian: &'a Matrix,
    /// Preference weights w, [m].
    pub weights: &'a [f64],
    /// Row weights alpha of the update, [m], where it has them.
    pub alpha: Option<&'a [f64]>,
    /// What the method tells: lists of m numbers are named by objective.
    pub diagnostics: &'a Map<String, Value>,
    /// What the optimiser did.
    pub report: Option<StepReport>,
    /// The batch and the log-probs of its responses.
    pub responses: Option<Responses<'a>>,
}

/// Log-probs of the responses of a batch under the policy.
pub struct Responses<'a> {
    /// The batch.
    pub batch: &'a Batch,
    /// Sums over the chosen responses, [B].
    pub chosen: &'a [f64],
    /// Sums over the rejected responses, [B]; `None` for demonstrations.
    pub rejected: Option<&'a [f64]>,
}

impl StepRow<'_> {
    /// The row, in the order of its columns.
    ///
    /// # Errors
    /// Lists whose length is not that of the objectives or the batch.
    pub fn to_map(&self) -> Result<Map<String, Value>> {
        let names = self.gradients.names();
        let mut row = Map::new();
        row.insert("losses".into(), named(names, self.gradients.losses())?);
        row.insert("w".into(), named(names, self.weights)?);
        if let Some(alpha) = self.alpha {
            row.insert("alpha".into(), named(names, alpha)?);
        }
        for (key, value) in self.diagnostics {
            row.insert(key.clone(), by_objective(names, value));
        }
        row.insert("norms".into(), norms(names, self.gramian)?);
        if names.len() > 1 {
            row.insert("cosines".into(), cosines(names, self.gramian));
        }
        let gramian = (0..names.len()).map(|i| json!(self.gramian.row(i))).collect();
        row.insert("h".into(), Value::Array(gramian));
        let layers = layers(self.gradients)?;
        if !layers.is_empty() {
            row.insert("layers".into(), Value::Object(layers));
        }
        row.insert("terms".into(), json!(self.gradients.terms()));
        if let Some(report) = self.report {
            row.insert("lr".into(), json!(report.lr));
            row.insert("update_norm".into(), json!(report.norm));
            row.insert("clipped".into(), json!(report.clipped));
        }
        if let Some(responses) = &self.responses {
            row.extend(responses.to_map()?);
        }
        Ok(row)
    }
}

impl Responses<'_> {
    /// Mean log-probs, and per objective the mean signed margin s·Δ and the part of pairs with s·Δ > 0, over
    /// the pairs on which the objective takes a side; null where it takes none.
    fn to_map(&self) -> Result<Map<String, Value>> {
        let Self { batch, chosen, rejected } = self;
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let mut row = Map::new();
        row.insert("chosen".into(), json!(mean(chosen)));
        let Some(rejected) = rejected else { return Ok(row) };
        if chosen.len() != batch.len() || rejected.len() != batch.len() {
            return Err(Error::internal(format!(
                "{} and {} log-probs for a batch of {}",
                chosen.len(),
                rejected.len(),
                batch.len()
            )));
        }
        row.insert("rejected".into(), json!(mean(rejected)));
        let margin = |b: usize| {
            let reference = batch.reference.as_ref().map_or(0.0, |r| r[b][0] - r[b][1]);
            chosen[b] - rejected[b] - reference
        };
        let (mut margins, mut accuracies) = (Map::new(), Map::new());
        for (i, name) in batch.objectives.iter().enumerate() {
            let signed: Vec<f64> = (0..batch.len())
                .filter_map(|b| {
                    batch.examples[b].labels[i].filter(|&s| s != 0).map(|s| f64::from(s) * margin(b))
                })
                .collect();
            let right = signed.iter().filter(|&&x| x > 0.0).count() as f64;
            let or_null = |x: f64| if signed.is_empty() { Value::Null } else { json!(x) };
            margins.insert(name.clone(), or_null(mean(&signed)));
            accuracies.insert(name.clone(), or_null(right / signed.len() as f64));
        }
        row.insert("margins".into(), Value::Object(margins));
        row.insert("accuracies".into(), Value::Object(accuracies));
        Ok(row)
    }
}

/// Norms and cosines over each layer, by its name; nothing for plain numbers, which have no layers.
fn layers(gradients: &Gradients) -> Result<Map<String, Value>> {
    let (names, blocks) = (gradients.names(), gradients.layer_gramians()?);
    if !blocks.iter().any(|(block, _)| block.starts_with("layer ")) {
        return Ok(Map::new());
    }
    let block = |(block, h): &(String, Matrix)| {
        let mut map = Map::from_iter([("norms".to_owned(), norms(names, h)?)]);
        if names.len() > 1 {
            map.insert("cosines".into(), cosines(names, h));
        }
        Ok((block.clone(), Value::Object(map)))
    };
    blocks.iter().map(block).collect()
}

/// ‖gᵢ‖, by name.
fn norms(names: &[String], gramian: &Matrix) -> Result<Value> {
    let norms: Vec<f64> = (0..names.len()).map(|i| gramian[(i, i)].sqrt()).collect();
    named(names, &norms)
}

/// One number an objective, by name.
///
/// # Errors
/// A count other than that of the names.
pub fn named(names: &[String], values: &[f64]) -> Result<Value> {
    if names.len() != values.len() {
        return Err(Error::new(format!("{} numbers for {} objectives", values.len(), names.len()))
            .help("give one number an objective"));
    }
    Ok(Value::Object(names.iter().zip(values).map(|(name, &x)| (name.clone(), json!(x))).collect()))
}

/// ⟨gᵢ, gⱼ⟩/(‖gᵢ‖‖gⱼ‖) for i < j, by name; null where a gradient is zero.
pub fn cosines(names: &[String], gramian: &Matrix) -> Value {
    let cosine = |i: usize, j: usize| {
        let lengths = gramian[(i, i)].sqrt() * gramian[(j, j)].sqrt();
        if lengths > 0.0 { json!((gramian[(i, j)] / lengths).clamp(-1.0, 1.0)) } else { Value::Null }
    };
    let later = |i: usize| (i + 1..names.len()).map(|j| (names[j].clone(), cosine(i, j))).collect();
    Value::Object(
        (0..names.len().saturating_sub(1)).map(|i| (names[i].clone(), Value::Object(later(i)))).collect(),
    )
}

fn by_objective(names: &[String], value: &Value) -> Value {
    match value {
        Value::Array(list) if list.len() == names.len() && list.iter().all(Value::is_number) => {
            Value::Object(names.iter().cloned().zip(list.iter().cloned()).collect())
        }
        other => other.clone(),
    }
}
