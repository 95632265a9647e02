//! The host seen from Rust.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use raco::error::Kind;
use raco::script::{Host, Options, Pause, Pauses, Reason, Then};

#[test]
fn a_panic_of_a_host_function_is_an_internal_error_and_the_host_lives_on() {
    let mut host = Host::new(Options::default()).unwrap();
    host.engine_mut().register_fn("explode", || -> i64 { panic!("a wire came loose") });
    let failure = host.run("let x = 1; explode()", "a.rhai").unwrap_err();
    assert_eq!(failure.error.kind(), Kind::Internal);
    assert!(failure.error.what().contains("a wire came loose"), "{failure}");
    assert_eq!(host.run("1 + 1", "b.rhai").unwrap().as_int(), Ok(2));
}

#[test]
fn the_flag_stops_an_endless_loop_and_a_sleep() {
    for script in ["loop {}", "try { loop {} } catch { }", "sleep(60)", "while true { let x = 1; }"] {
        let interrupt = Arc::new(AtomicBool::new(false));
        let flag = interrupt.clone();
        let host = Host::new(Options { interrupt, ..Options::default() }).unwrap();
        let begun = Instant::now();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            flag.store(true, Ordering::SeqCst);
        });
        let failure = host.run(script, "a.rhai").unwrap_err();
        stopper.join().unwrap();
        assert_eq!(failure.error.kind(), Kind::Interrupted, "{script}: {failure}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{script}");
    }
}

#[test]
fn the_call_stack_names_every_source() {
    let lib = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/script/suite/lib");
    let host = Host::new(Options { lib: vec![lib], ..Options::default() }).unwrap();
    let script = "import \"broken\" as b;\nfn f(x) { b::outer(x) }\nf(1.0)";
    let failure = host.run(script, "main.rhai").unwrap_err();
    let frames: Vec<(String, usize, usize, &str)> = failure
        .frames
        .iter()
        .map(|f| (f.source.rsplit('/').next().unwrap().to_owned(), f.line, f.column, f.enters.as_str()))
        .collect();
    let expected = [
        ("main.rhai", 3, 1, "`f`"),
        ("main.rhai", 2, 14, "`outer`"),
        ("broken.rhai", 1, 15, "`inner`"),
        ("broken.rhai", 2, 23, ""),
    ];
    let expected = expected.map(|(source, line, column, enters)| (source.to_owned(), line, column, enters));
    assert_eq!(frames, expected);
}

#[test]
fn arguments_for_a_script_without_any_are_refused() {
    let options = Options { args: vec!["--x".into(), "1".into()], ..Options::default() };
    let failure = Host::new(options).unwrap().run("print(1)", "a.rhai").unwrap_err();
    assert_eq!(failure.error.kind(), Kind::Usage);
}

#[test]
fn the_stack_of_a_test_thread_holds_the_deepest_recursion() {
    let host = Host::new(Options { console: Rc::new(raco::script::Silent), ..Options::default() }).unwrap();
    for script in [
        "fn f(x) { f(x) } f(1)",
        "fn f(x) { [x].map(|y| f(y)) } f(1)",
        "fn f(x) { if x > 0 { switch x { 1 => { for i in 0..3 { f(x); } } } } } f(1)",
        "let f = |g| g.call(g); f.call(f)",
    ] {
        let failure = host.run(script, "a.rhai").unwrap_err();
        assert!(failure.error.what().contains("levels deep"), "{script}: {failure}");
    }
}

#[test]
fn a_breakpoint_asks_the_embedding_program_and_without_one_goes_on() {
    let script = "let x = 1;\nbreakpoint();\nx";
    let host = Host::new(Options::default()).unwrap();
    assert_eq!(host.run(script, "a.rhai").unwrap().as_int(), Ok(1));
    let prompt = |pause: &Pause<'_>| {
        assert_eq!((pause.reason, pause.place.to_string().as_str()), (Reason::Breakpoint, "a.rhai:2:1"));
        pause.live.borrow_mut().run("x += 41").map(drop).unwrap();
        Then::Continue
    };
    let pauses = Pauses { prompt: Rc::new(prompt), request: Arc::default(), when: None };
    let mut host = Host::new(Options { pauses: Some(pauses), ..Options::default() }).unwrap();
    host.arm(script);
    assert_eq!(host.run(script, "a.rhai").unwrap().as_int(), Ok(42));
}
