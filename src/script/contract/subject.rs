//! A method under test, called as a script calls it.

use std::path::PathBuf;

use rhai::{AST, Array, Dynamic, EvalAltResult, Map};

use super::super::api::find_aggregator;
use super::super::value::{array, floats};
use super::super::{Failure, Header, Host, Options};
use super::families::length;

/// Every update starts afresh: from the file's own options, without state.
const CALLS: &str = "
    fn open(name) { aggregator(name) }
    fn answer(method, rows, w) {
        let names = [];
        for i in 0..rows.len() { names.push(`g${i}`); }
        let update = method.fresh().update(gradients(rows, names), w);
        #{ direction: update.direction.to_array(), alpha: if \"alpha\" in update { update.alpha } else { [] } }
    }";

/// Stands for these functions in messages.
const NAME: &str = "contract";

/// A method, ready to be asked.
pub(super) struct Subject {
    host: Host,
    calls: AST,
    method: Dynamic,
    /// The file, as messages name it.
    pub file: String,
    pub header: Header,
}

/// What a method says to one case.
pub(super) enum Answer {
    Found(Update),
    /// The method threw an error of its own: it has no answer, and says so.
    Nothing(String),
    /// The file broke, or what it returned is no update.
    Broken(Failure),
}

/// An update and the weights it came from.
pub(super) struct Update {
    pub direction: Vec<f64>,
    pub alpha: Option<Vec<f64>>, // [m]
    /// ‖d‖ or Σ|α_i|‖g_i‖, whichever is larger: what rounding of d is relative to. Without α, ‖d‖ or the longest row.
    pub size: f64,
}

impl Subject {
    /// The method of a file or of the library.
    pub fn open(name: &str, options: Options) -> Result<Self, Failure> {
        let host = Host::new(options)?;
        host.session().script.replace(PathBuf::from(name));
        let source = find_aggregator(host.session(), name)?;
        let header = Header::parse(&source.text);
        let calls = host.compile(CALLS, NAME)?;
        let opened = host.call(&calls, "open", (name.to_owned(),));
        let method = opened.map_err(|error| explained(&host, *error))?;
        Ok(Self { host, calls, method, file: source.name, header })
    }

    /// One update from a fresh state.
    ///
    /// # Errors
    /// Ctrl-C.
    pub fn answer(&self, rows: &[Vec<f64>], w: &[f64]) -> Result<Answer, Failure> {
        let matrix: Array = rows.iter().map(|row| Dynamic::from(array(row))).collect();
        match self.host.call(&self.calls, "answer", (self.method.clone(), matrix, array(w))) {
            Ok(found) => Ok(match update(found, rows) {
                Ok(update) => Answer::Found(update),
                Err(error) => Answer::Broken(error.into()),
            }),
            Err(error) => {
                let interrupted = matches!(error.unwrap_inner(), EvalAltResult::ErrorTerminated(..));
                let thrown = matches!(error.unwrap_inner(), EvalAltResult::ErrorRuntime(..));
                let failure = explained(&self.host, *error);
                if interrupted {
                    return Err(failure);
                }
                let own = failure.frames.iter().any(|frame| frame.source == self.file);
                Ok(match thrown && own {
                    true => Answer::Nothing(failure.error.what().to_owned()),
                    false => Answer::Broken(failure),
                })
            }
        }
    }
}

/// The failure without the lines that are ours.
fn explained(host: &Host, error: EvalAltResult) -> Failure {
    let mut failure = host.explain(NAME, error);
    failure.frames.retain(|frame| frame.source != NAME);
    failure
}

fn update(found: Dynamic, rows: &[Vec<f64>]) -> crate::Result<Update> {
    let found: Map = found.cast();
    let numbers = |key: &str| floats(&found[key].clone().cast::<Array>(), key);
    let (direction, alpha) = (numbers("direction")?, numbers("alpha")?);
    let alpha = (alpha.len() == rows.len()).then_some(alpha);
    let lengths = rows.iter().map(|row| length(row));
    let parts = match &alpha {
        Some(alpha) => lengths.zip(alpha).map(|(d, a)| a.abs() * d).sum(),
        None => lengths.fold(0.0, f64::max),
    };
    let size = length(&direction).max(parts);
    Ok(Update { direction, alpha, size })
}

impl Update {
    /// Whether two vectors agree up to what a Gramian loses by squaring.
    pub fn agrees(&self, expected: &[f64], found: &[f64]) -> bool {
        agree(expected, found, self.size)
    }
}

/// Whether two vectors agree to a millionth of `size`.
pub(super) fn agree(a: &[f64], b: &[f64], size: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= TOLERANCE * size)
}

/// Squaring halves the digits: what a Gramian knows of a row that cancels, it knows to √ε of the parts.
pub(super) const TOLERANCE: f64 = 1e-6;
