//! What survives from one chunk of a prompt to the next.

use raco::script::{Host, Live, Names, Options};

fn live() -> Live<'static> {
    Live::new(Host::new(Options::default()).unwrap())
}

fn int(live: &mut Live, text: &str) -> i64 {
    live.run(text).unwrap_or_else(|f| panic!("{text}: {f}")).as_int().unwrap()
}

#[test]
fn variables_constants_functions_imports_and_closures_survive() {
    let mut live = live();
    for text in [
        "let x = 1;",
        "const K = 10;",
        "fn f(a) { a + global::K }",
        "import \"visits\" as visits;",
        "let c = |y| x + y;",
    ] {
        live.run(text).map(drop).unwrap();
    }
    assert_eq!(int(&mut live, "f(x)"), 11);
    assert_eq!(int(&mut live, "c.call(4)"), 5);
    assert_eq!(int(&mut live, "visits::orders(\"ascending\", 2, rng(0)).len()"), 2);
    live.run("x = 5; fn f(a) { 2 * a }").map(drop).unwrap();
    assert_eq!(int(&mut live, "f(x)"), 10);
    assert_eq!(int(&mut live, "let x = 3; x"), 3);
    live.run("let K = 7;").map(drop).unwrap();
    assert_eq!(int(&mut live, "K"), 7);
    let names: Vec<&str> = live.variables().map(|variable| variable.name).collect();
    assert_eq!(names.iter().filter(|name| **name == "x").count(), 1, "{names:?}");
}

#[test]
fn an_error_tells_the_chunk_and_its_line_and_loses_nothing() {
    let mut live = live();
    live.run("fn g(a) {\n    a.boom()\n}").map(drop).unwrap();
    live.run("let kept = 1;").map(drop).unwrap();
    let failure = live.run("let before = 2;\ng(3)").unwrap_err();
    let frames: Vec<String> = failure.frames.iter().map(ToString::to_string).collect();
    assert_eq!(frames, ["[3]:2:1", "[1]:2:7"]);
    assert_eq!(int(&mut live, "kept + before"), 3);
    assert!(live.run("let = 3").unwrap_err().to_string().starts_with("[5]:1:5"));
    assert_eq!(live.script(), "fn g(a) {\n    a.boom()\n}\n;\nlet kept = 1;\nkept + before\n;\n");
    // what is saved runs
    live.run("let map = #{ a: 1 } // no semicolon").map(drop).unwrap();
    live.run("map.a").map(drop).unwrap();
    let mut again = self::live();
    again.run("let before = 2;").map(drop).unwrap();
    assert_eq!(int(&mut again, &format!("{}kept + map.a", live.script())), 2);
}

#[test]
fn names_are_completed_by_what_a_value_is() {
    let mut live = live();
    live.run("let h = matrix([[1.0]]); let m = #{ inner: #{ first: 1 } };").map(drop).unwrap();
    let names = Names::new(live.engine());
    assert_eq!(names.members(&live, "h", "row"), ["row(", "row_norms(", "rows"]);
    assert_eq!(names.members(&live, "m.inner", "fir"), ["first"]);
    assert_eq!(names.signatures(&live, "cagrad_dual"), ["cagrad_dual(h, w, c)"]);
    assert!(names.words(&live, "cagrad").contains(&"cagrad_dual(".to_owned()));
    live.run("import \"losses/dpo\" as dpo;").map(drop).unwrap();
    assert_eq!(names.of_module(&live, "dpo", ""), ["losses("]);
}
