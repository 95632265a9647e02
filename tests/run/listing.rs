use raco::run::{Listing, Query, find_runs, list_runs};
use serde_json::{Value, json};

use super::report::run_folder;

fn listed(query: Query) -> Listing {
    let folder = tempfile::tempdir().unwrap();
    for (name, method, seed, steps) in
        [("a", "mgda", 2, 3), ("b", "cagrad_clip", 10, 5), ("deep/c", "cagrad_clip", 1, 4)]
    {
        run_folder(&folder.path().join(name), method, seed, steps);
    }
    std::fs::create_dir(folder.path().join("d")).unwrap();
    std::fs::write(folder.path().join("d/run.json"), "{").unwrap();
    list_runs(&find_runs(&[folder.path().to_owned()]).unwrap(), &query).unwrap()
}

fn column(listing: &Listing, name: &str) -> Vec<Value> {
    let at = listing.columns.iter().position(|column| column == name).unwrap();
    listing.rows.iter().map(|row| row[at].clone()).collect()
}

fn query(sort: &str, filters: &[&str]) -> Query {
    let sort = (!sort.is_empty()).then(|| sort.to_owned());
    Query { sort, filters: filters.iter().map(|f| (*f).to_owned()).collect(), columns: None }
}

#[test]
fn runs_have_a_row_each_and_broken_ones_the_reason() {
    let listing = listed(Query::default());
    assert_eq!(
        listing.columns,
        [
            "name",
            "method",
            "weights",
            "c",
            "seed",
            "steps",
            "losses.quality",
            "losses.brevity",
            "scores.quality",
            "seconds",
            "date",
            "problem"
        ]
    );
    assert_eq!(column(&listing, "name"), ["a", "b", "d", "deep/c"]);
    assert_eq!(column(&listing, "weights")[0], "quality 0.75, brevity 0.25");
    assert_eq!(column(&listing, "steps"), [json!(3), json!(5), json!(0), json!(4)]);
    assert_eq!(column(&listing, "scores.quality"), [json!(0.625), json!(0.625), Value::Null, json!(0.625)]);
    assert_eq!(column(&listing, "seconds")[1], json!(0.05));
    assert_eq!(column(&listing, "date")[0], "2023-11-14 22:13");
    let problems = column(&listing, "problem");
    assert!(problems[0].is_null() && problems[2].as_str().unwrap().contains("missing"), "{problems:?}");
}

#[test]
fn rows_are_sorted_by_number_and_filtered_by_conditions() {
    let names = |sort: &str, filters: &[&str]| column(&listed(query(sort, filters)), "name");
    assert_eq!(names("seed", &[]), ["deep/c", "a", "b", "d"]);
    // what is missing stays last
    assert_eq!(names("-seed", &[]), ["b", "a", "deep/c", "d"]);
    assert_eq!(names("-method", &[]), ["a", "b", "deep/c", "d"]);
    assert_eq!(names("", &["method=cagrad_clip"]), ["b", "deep/c"]);
    assert_eq!(names("", &["method=cagrad_clip", "seed>3"]), ["b"]);
    assert_eq!(names("", &["method!=cagrad_clip"]), ["a"]);
    assert_eq!(names("", &["seed<=2"]), ["a", "deep/c"]);
    assert_eq!(names("", &["weights.brevity=0.25", "steps >= 4"]), ["b", "deep/c"]);
    assert_eq!(names("", &["method>3"]), [] as [&str; 0], "a text is not above a number");
    let columns = Some(vec!["name".to_owned(), "lr".to_owned(), "after.quality".to_owned()]);
    let listing = listed(Query { columns, ..query("", &["seed=1"]) });
    assert_eq!(listing.rows, [[json!("deep/c"), json!(0.5), json!(0.625)]]);
}

#[test]
fn unknown_columns_and_broken_conditions_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    run_folder(folder.path(), "mgda", 0, 3);
    let runs = find_runs(&[folder.path().to_owned()]).unwrap();
    let error = |query: Query| list_runs(&runs, &query).unwrap_err().to_string();
    assert!(error(query("sead", &[])).contains("no run has a column `sead`\nhelp: did you mean `seed`"));
    assert!(error(query("", &["seed"])).contains("`seed` is no condition"));
    assert!(error(query("", &["=3"])).contains("`=3` is no condition"));
    assert!(error(query("", &["metod=x"])).contains("`method`"));
    assert!(
        error(Query { columns: Some(vec!["losses.qualty".into()]), ..Query::default() })
            .contains("`losses.quality`")
    );
}
