//! The contract of aggregators: what a header claims under `Holds`, tested on families of matrices.
//!
//! A file is called as a script calls it, from a fresh state and with its own options. What fails is shrunk to a
//! smallest counterexample. A method that throws an error for a case has no answer there, and is not held to it.

mod families;
mod properties;
mod show;
mod shrink;
mod subject;

use std::collections::BTreeMap;
use std::fmt;

use super::{Failure, Header, Options};

pub use families::{Case, EXTREMES, FAMILIES, Family, case, mix};
pub use properties::{Finding, Property};

use properties::Verdict;
use subject::{Answer, Subject, Update};

/// How much is tested.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Cases of each family and number of rows.
    pub seeds: u64,
    /// Numbers of rows.
    pub m: Vec<usize>,
}

/// What a test of all claims found.
#[derive(Debug)]
pub struct Report {
    /// The file, as messages name it.
    pub file: String,
    /// Its header.
    pub header: Header,
    /// Whether the header has a section `Holds`.
    pub claims: bool,
    /// Cases put to the method.
    pub cases: usize,
    /// Cases that it answered.
    pub answered: usize,
    /// The errors it threw for the others, with their numbers.
    pub refusals: BTreeMap<String, usize>,
    /// Every property, in the order of [`Property::ALL`].
    pub results: Vec<Tested>,
    /// A case on which the file broke.
    pub broken: Option<Counterexample>,
}

/// A property and how it fared.
#[derive(Debug)]
pub struct Tested {
    /// The property.
    pub property: Property,
    /// Whether the header claims it.
    pub claimed: bool,
    /// Whether it holds.
    pub holds: bool,
    /// Cases of which it says something; testing ends with the first that fails.
    pub cases: usize,
    /// Where it is claimed and does not hold, or is not claimed and must be.
    pub counterexample: Option<Counterexample>,
}

/// A smallest case on which a promise is broken.
#[derive(Debug)]
pub struct Counterexample {
    /// Rows and weights.
    pub case: Case,
    /// What is wrong.
    pub finding: Finding,
    /// Rows and columns of the case it was shrunk from.
    pub from: (usize, usize),
}

impl Report {
    /// Whether the method answers and keeps what it claims.
    pub fn passed(&self) -> bool {
        self.broken.is_none()
            && self.answered > 0
            && self.results.iter().all(|t| t.counterexample.is_none() && (t.holds || !t.claimed))
    }

    /// Properties that hold wherever they say something, without being claimed.
    pub fn unclaimed(&self) -> Vec<Property> {
        let claimed = |property| self.results.iter().any(|t| t.property == property && t.claimed);
        let implied = |property| match property {
            Property::PositiveCombination => claimed(Property::ConvexCombination),
            _ => false,
        };
        let holds = self.results.iter().filter(|t| t.holds && !t.claimed && t.cases > 0);
        holds.map(|t| t.property).filter(|property| !implied(*property)).collect()
    }
}

/// Tests what the header of an aggregator claims; `progress` is told how many cases of how many are done.
///
/// # Errors
/// A method that is not found or does not compile, an unknown property under `Holds`, Ctrl-C.
pub fn check(
    name: &str,
    options: Options,
    plan: &Plan,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report, Failure> {
    let subject = Subject::open(name, options)?;
    let mut report = Report::new(&subject)?;
    let cases = plan.cases();
    for (done, case) in cases.iter().enumerate() {
        progress(done, cases.len());
        report.put(&subject, case)?;
    }
    progress(cases.len(), cases.len());
    for tested in report.results.iter_mut().filter(|t| t.property == Property::FollowsWeights) {
        // its test fails where w takes part
        tested.holds = !tested.holds;
    }
    Ok(report)
}

impl Plan {
    fn cases(&self) -> Vec<Case> {
        let families = || FAMILIES.into_iter().chain(EXTREMES);
        let seeds = self.m.iter().flat_map(|m| (0..self.seeds).map(move |seed| (*m, seed)));
        seeds.flat_map(|(m, seed)| families().map(move |family| case(family, m, seed))).collect()
    }
}

impl Report {
    fn new(subject: &Subject) -> crate::Result<Self> {
        let claims = subject.header.claims(&subject.file)?;
        let tested = |property| Tested {
            property,
            claimed: claims.as_ref().is_some_and(|claims| claims.contains(&property)),
            holds: true,
            cases: 0,
            counterexample: None,
        };
        Ok(Self {
            file: subject.file.clone(),
            header: subject.header.clone(),
            claims: claims.is_some(),
            cases: 0,
            answered: 0,
            refusals: BTreeMap::new(),
            results: Property::ALL.map(tested).into(),
            broken: None,
        })
    }

    /// Puts one case to the method.
    fn put(&mut self, subject: &Subject, case: &Case) -> Result<(), Failure> {
        self.cases += 1;
        let base = match subject.answer(&case.rows, &case.w)? {
            Answer::Found(update) => update,
            Answer::Nothing(error) => {
                *self.refusals.entry(error).or_default() += 1;
                return Ok(());
            }
            // what breaks at once is told with its line
            Answer::Broken(failure) if self.cases == 1 && !failure.frames.is_empty() => return Err(failure),
            Answer::Broken(failure) => {
                if self.broken.is_none() {
                    let breaks = |case: &Case| {
                        Ok(match subject.answer(&case.rows, &case.w)? {
                            Answer::Broken(failure) => Some(broken(&failure)),
                            _ => None,
                        })
                    };
                    self.broken = Some(smallest(case, broken(&failure), breaks)?);
                }
                return Ok(());
            }
        };
        self.answered += 1;
        let follows =
            !self.claims || self.results.iter().any(|t| t.property == Property::FollowsWeights && t.claimed);
        for tested in self.results.iter_mut().filter(|t| t.holds) {
            let property = tested.property;
            let test = |case: &Case, base: &Update| property.test(subject, case, base, follows);
            let finding = match test(case, &base)? {
                Verdict::Skipped => continue,
                Verdict::Holds => None,
                Verdict::Fails(finding) => Some(finding),
            };
            tested.cases += 1;
            let Some(finding) = finding else { continue };
            tested.holds = false;
            let wrong = match property {
                Property::FollowsWeights => self.claims && !tested.claimed,
                _ => tested.claimed,
            };
            if wrong {
                let fails = |case: &Case| {
                    let Answer::Found(base) = subject.answer(&case.rows, &case.w)? else { return Ok(None) };
                    Ok(match test(case, &base)? {
                        Verdict::Fails(finding) => Some(finding),
                        _ => None,
                    })
                };
                tested.counterexample = Some(smallest(case, finding, fails)?);
            }
        }
        Ok(())
    }
}

fn broken(failure: &Failure) -> Finding {
    let found = match failure.frames.last() {
        Some(frame) => format!("{frame}: {}", failure.error.what()),
        None => failure.error.what().to_owned(),
    };
    Finding { expected: "an update, or an error made by `error(what, help)`".to_owned(), found }
}

fn smallest(
    case: &Case,
    finding: Finding,
    fails: impl Fn(&Case) -> Result<Option<Finding>, Failure>,
) -> Result<Counterexample, Failure> {
    let from = (case.m(), case.rows.first().map_or(0, Vec::len));
    let (case, finding) = shrink::shrink(case.clone(), finding, fails)?;
    Ok(Counterexample { case, finding, from })
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { family, rows, w } = &self.case;
        let (m, n) = self.from;
        writeln!(f, "smallest matrix, from one of the family `{family}`, {m} × {n}:\n")?;
        for (i, line) in show::matrix(rows).into_iter().enumerate() {
            writeln!(f, "    {} {line}   w{i} = {}", if i == 0 { "J =" } else { "   " }, show::full(w[i]))?;
        }
        writeln!(f, "\n    expected  {}", self.finding.expected)?;
        write!(f, "    found     {}", self.finding.found)
    }
}

impl Counterexample {
    /// Lines of a script that show the update of the case by the method `file`.
    pub fn script(&self, file: &str) -> String {
        let list = |values: &[f64]| {
            format!("[{}]", values.iter().map(|x| show::full(*x)).collect::<Vec<_>>().join(", "))
        };
        let rows: Vec<String> = self.case.rows.iter().map(|row| list(row)).collect();
        let names: Vec<String> = (0..rows.len()).map(|i| format!("\"g{i}\"")).collect();
        format!(
            "let g = gradients([{}], [{}]);\nprint(aggregator(\"{file}\").update(g, {}).direction.to_array());\n",
            rows.join(", "),
            names.join(", "),
            list(&self.case.w)
        )
    }
}
