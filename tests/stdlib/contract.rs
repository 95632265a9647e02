//! Every aggregator of the library has a full header and keeps what it claims there.

use std::path::{Path, PathBuf};

use raco::script::contract::{self, Plan, Property, Report};
use raco::script::{Header, Options};

use crate::common::families::{Case, FAMILIES};
use raco::script::contract::EXTREMES;

/// Files of `stdlib/aggregators`, by name.
fn methods() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stdlib/aggregators");
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| stem(entry.unwrap().path())).collect();
    names.sort();
    names
}

fn check(name: &str, seeds: u64, m: &[usize]) -> Report {
    let plan = Plan { seeds, m: m.to_vec() };
    contract::check(name, Options::default(), &plan, |_, _| ()).unwrap_or_else(|f| panic!("{name}: {f}"))
}

/// What is wrong with a report, in words.
fn complaints(report: &Report) -> Vec<String> {
    let wrong = report.results.iter().filter(|t| t.counterexample.is_some() || t.claimed && !t.holds);
    let mut complaints: Vec<String> = wrong
        .map(|t| {
            let found = t.counterexample.as_ref().map_or_else(String::new, ToString::to_string);
            format!("{}: `{}` {found}", report.file, t.property.name())
        })
        .collect();
    complaints.extend(report.broken.iter().map(|found| format!("{} breaks: {found}", report.file)));
    if report.answered == 0 {
        complaints.push(format!("{} answers no case", report.file));
    }
    complaints
}

#[test]
fn every_method_keeps_what_its_header_claims() {
    let names = methods();
    assert!(names.len() >= 5, "{names:?}");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some(name) = names.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let begun = std::time::Instant::now();
            found.extend([check(name, 4, &[1, 2, 3]), check(name, 1, &[8, 32])].iter().flat_map(complaints));
            println!("{name} {:?}", begun.elapsed());
        }
        found
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_header_is_full() {
    for name in methods() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("stdlib/aggregators/{name}.rhai"));
        let header = Header::parse(&std::fs::read_to_string(path).unwrap());
        assert!(!header.name.is_empty() && !header.summary.is_empty(), "{name}: the first line is `NAME: …`");
        assert!(!header.definition.is_empty(), "{name} has no definition");
        assert!(header.missing().is_empty(), "{name} lacks {:?}", header.missing());
        let claims = header.claims(&name).unwrap_or_else(|e| panic!("{name}: {e}")).unwrap();
        assert!(!claims.is_empty(), "{name} claims nothing");
    }
}

/// A method of the test's own.
struct Own(tempfile::TempDir);

impl Own {
    fn new(holds: &str, body: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "//! Own: for a test.\n//!\n//! Holds   {holds}\n\nfn weights(h, w, options) {{ {body} }}\n"
        );
        std::fs::write(folder.path().join("own.rhai"), text).unwrap();
        Self(folder)
    }

    fn check(&self) -> Result<Report, raco::script::Failure> {
        let file = self.0.path().join("own.rhai").display().to_string();
        contract::check(&file, Options::default(), &Plan { seeds: 4, m: vec![1, 2, 3, 8] }, |_, _| ())
    }

    /// The counterexample to the only claim.
    fn counterexample(&self) -> Case {
        let report = self.check().unwrap();
        assert!(!report.passed());
        let mut found = report.results.into_iter().filter_map(|t| t.counterexample);
        let counterexample = found.next().unwrap_or_else(|| panic!("no counterexample"));
        assert!(found.next().is_none());
        counterexample.case
    }
}

/// A wrong method for each property, and the size of the smallest matrix that shows it.
#[test]
fn every_property_can_fail_and_its_counterexample_is_small() {
    let mean = "#{ alpha: filled(h.rows, 1.0 / h.rows) }";
    let absolute = "#{ alpha: filled(h.rows, if h.diagonal().sum() < 1e-6 { 0.0 } else { 1.0 }) }";
    let first = "let a = filled(h.rows, 0.0); a[0] = 1.0; #{ alpha: a }";
    for (property, body, rows) in [
        ("scale-equivariant", absolute, 1),
        ("scale-invariant", mean, 1),
        ("permutation-equivariant", first, 2),
        ("non-conflicting", mean, 2),
        ("descent", "#{ alpha: filled(h.rows, -1.0) }", 1),
        ("convex-combination", "#{ alpha: filled(h.rows, 1.0) }", 2),
        ("positive-combination", "#{ alpha: filled(h.rows, -1.0) }", 1),
        ("stationary", mean, 2),
        ("row-scale-invariant", mean, 2),
        ("linear-in-scales", "#{ alpha: min_norm_point(h).p }", 2),
        (
            "weight-zero-out, follows-weights",
            "#{ alpha: if w[0] > 0.5 { filled(h.rows, 1.0) } else { w } }",
            2,
        ),
        ("reduces-to-mean", "#{ alpha: filled(h.rows, 1.0) }", 2),
        ("reduces-to-sum", mean, 2),
        ("single", "#{ alpha: filled(h.rows, 2.0) }", 1),
        ("zero-preserving", "#{ alpha: w }", 2),
    ] {
        let own = Own::new(property, body);
        if property == "zero-preserving" {
            // w takes part though that is not claimed; 0 needs no more than a sum to be kept
            assert!(own.counterexample().m() == rows);
            continue;
        }
        let case = own.counterexample();
        assert_eq!(case.m(), rows, "{property}: {case:?}");
        assert!(case.rows[0].len() <= 2, "{property}: {case:?}");
        let round = |x: &f64| format!("{x:e}").len() <= 6;
        assert!(case.rows.iter().flatten().all(round), "{property}: {case:?}");
    }
}

#[test]
fn what_reads_the_coordinates_or_the_clock_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.rhai");
    let report = |holds: &str, body: &str| {
        let text = format!("//! Own: for a test.\n//!\n//! Holds   {holds}\n\n{body}\n");
        std::fs::write(&file, text).unwrap();
        let plan = Plan { seeds: 2, m: vec![2, 3] };
        contract::check(&file.display().to_string(), Options::default(), &plan, |_, _| ()).unwrap()
    };
    let sign = "fn direction(gradients, w, options) { #{ direction: gradients[0].sign() } }";
    let found =
        report("rotation-equivariant", sign).results.into_iter().find_map(|t| t.counterexample).unwrap();
    assert!(found.case.rows.iter().all(|row| row.len() == 1), "{found}");
    let drifting = "fn weights(h, w, options) { #{ alpha: filled(h.rows, timestamp().elapsed) } }";
    assert!(!report("repeatable", drifting).passed());
    let shifted = "fn direction(gradients, w, options) { #{ direction: gradients[0] * 0.0 + 1.0 } }";
    let found =
        report("zero-preserving", shifted).results.into_iter().find_map(|t| t.counterexample).unwrap();
    assert_eq!(found.case.rows.concat(), [0.0]);
    assert!(
        report("zero-preserving", "fn weights(h, w, options) { #{ alpha: filled(h.rows, 1.0) } }").passed()
    );
}

#[test]
fn the_weights_of_a_method_that_hides_them_are_found() {
    let report = Own::new("single", "#{ alpha: w }").check().unwrap();
    let follows = report.results.iter().find(|t| t.property == Property::FollowsWeights).unwrap();
    assert_eq!(follows.counterexample.as_ref().unwrap().case.m(), 2);
    let report = Own::new("follows-weights", "#{ alpha: filled(h.rows, 1.0) }").check().unwrap();
    assert!(!report.passed());
    assert!(Own::new("follows-weights", "#{ alpha: w }").check().unwrap().passed());
}

#[test]
fn no_answer_is_no_counterexample_but_a_broken_file_is() {
    let picky = "if h.rows == 2 { throw error(\"no answer for two rows\", \"give three\"); } #{ alpha: filled(h.rows, 1.0) }";
    let report = Own::new("reduces-to-sum", picky).check().unwrap();
    assert!(report.passed());
    assert_eq!(report.refusals.keys().collect::<Vec<_>>(), ["no answer for two rows"]);
    assert_eq!(report.cases - report.answered, 4 * (FAMILIES.len() + EXTREMES.len()));
    let never = Own::new("single", "throw error(\"no answer\", \"none\");").check().unwrap();
    assert!(!never.passed() && never.answered == 0);
    let broken = Own::new("repeatable", "#{ alpha: if h.rows < 3 { filled(h.rows, 1.0) } else { [1.0] } }");
    let broken = broken.check().unwrap().broken.unwrap();
    assert_eq!(broken.case.m(), 3);
    assert!(broken.to_string().contains("1 row weights for 3 objectives"), "{broken}");
    let typo = Own::new("single", "#{ alpha: filld(h.rows, 1.0) }").check().unwrap_err();
    assert!(typo.frames.last().unwrap().source.ends_with("own.rhai"), "{typo}");
}

#[test]
fn an_unknown_property_is_named_with_its_line() {
    let error = Own::new("single, non-conflictin", "#{ alpha: w }").check().unwrap_err().to_string();
    assert!(error.contains("own.rhai:3: unknown property `non-conflictin`"), "{error}");
    assert!(error.contains("did you mean `non-conflicting`?"), "{error}");
}

#[test]
fn a_header_without_claims_is_told_what_holds() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.rhai");
    std::fs::write(&file, "fn weights(h, w, options) { #{ alpha: w } }").unwrap();
    let plan = Plan { seeds: 4, m: vec![1, 2, 3] };
    let report = contract::check(&file.display().to_string(), Options::default(), &plan, |_, _| ()).unwrap();
    assert!(report.passed() && !report.claims);
    let found: Vec<&str> = report.unclaimed().iter().map(|p| p.name()).collect();
    for name in ["scale-equivariant", "descent", "convex-combination", "follows-weights", "weight-zero-out"] {
        assert!(found.contains(&name), "{name} in {found:?}");
    }
    assert!(!found.contains(&"non-conflicting") && !found.contains(&"reduces-to-sum"), "{found:?}");
}
