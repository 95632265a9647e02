//! From a running script to a prompt: `breakpoint()`, conditions, Ctrl-C; and on, without a trace.

use std::fs::File;
use std::process::Command;

use crate::common::program::{Outcome, Program, Running};

/// The main job with a line more at the end of its loop.
fn job(program: &Program, at_the_end_of_a_step: &str) {
    let script = program.read("scripts/raco_clip.rhai");
    let log = "    run.log(gradients, update);\n";
    assert!(script.contains(log));
    program.write("scripts/job.rhai", script.replace(log, &format!("{log}    {at_the_end_of_a_step}\n")));
}

const SHORT: &str = "--steps 6 --evaluate 2 --batch 4 --out run";

/// A command that reads these lines.
fn typed(program: &Program, words: &str, lines: &str) -> Command {
    program.write("typed", lines);
    let mut command = program.command(words);
    command.stdin(File::open(program.path("typed")).unwrap());
    command
}

fn run(program: &Program, script: &str, words: &str, lines: &str) -> Outcome {
    program.write("a.rhai", script);
    program.start(typed(program, &format!("script a.rhai {words}"), lines)).wait()
}

/// The places where it paused, as `line:column`.
fn places(outcome: &Outcome) -> Vec<&str> {
    outcome
        .out
        .lines()
        .filter_map(|line| line.split_once("at a.rhai:").map(|(_, place)| place.split(' ').next().unwrap()))
        .collect()
}

#[test]
fn variables_are_shown_and_changed_where_the_script_stands() {
    let script = "let x = 1;
let a = [1, 2];
const K = 3;
import \"visits\" as visits;
fn double(y) { breakpoint(); 2 * y * global::K }
let f = |z| z + x;
print(`double ${double(x)}`);
breakpoint();
print(`x ${x} a ${a} f ${f.call(1)}`);
for i in 0..2 { let inner = i; breakpoint(); print(`inner ${inner}`); }
";
    let lines = "y
y = 20
:continue
x = 5;
a[0] = 7;
let own = x + K;
fn twice(n) { 2 * n }
K = 1
f = |z| twice(z) + 1;
visits::orders(\"ascending\", 2, rng(0)).len()
conflicts(gradients([[1.0, 0.0], [-0.5, 1.0]], [\"p\", \"q\"])).values.keys()
:who
:continue
own + twice(i)
inner = 9;
:continue
:continue
";
    let program = Program::new();
    let outcome = run(&program, script, "", lines);
    let out = &outcome.success().out;
    let all = outcome.all();
    assert_eq!(places(&outcome), ["5:16", "8:1", "10:32", "10:32"], "{all}");
    for expected in [
        "double 120\n",
        "x 5 a [7, 2] f 3\n",
        "  x    int: 5\n",
        "module visits",
        "\"condition\", \"cosines\"",
        "inner 9\n",
        "inner 1\n",
    ] {
        assert!(out.contains(expected), "no `{expected}` in {all}");
    }
    assert!(out.contains("\n8\n"), "what a pause defined is there at the next: {all}");
    assert!(outcome.err.contains("K"), "a constant stays: {all}");
}

#[test]
fn steps_go_into_functions_or_over_them_and_where_shows_the_lines() {
    let script = "fn f(y) {
    let z = y + 1;
    z * 2
}
breakpoint();
let a = f(1);
let b = f(a);
if b > 0 {
    let g = gradients([[1.0, 0.0]], [\"p\"]);
    g.norms();
}
print(a + b);
";
    let program = Program::new();
    let lines = ":next\n:next\n:step\n:where\n:step\n:next\n:next\n:next\n:next\na\n:continue\n";
    let outcome = run(&program, script, "", lines);
    let all = outcome.all();
    assert!(outcome.success().out.contains("\n14\n"), "{all}");
    let expected = ["5:1", "6:1", "7:1", "2:5", "3:7", "8:1", "9:5", "10:5", "12:1"];
    assert_eq!(places(&outcome), expected, "{all}");
    assert!(outcome.out.contains("     1 | fn f(y) {\n>    2 |     let z = y + 1;\n     3 |"), "{all}");
}

#[test]
fn errors_at_a_pause_are_told_and_the_script_goes_on() {
    let program = Program::new();
    let lines = "y.boom()\nf(1)\n:hlp\n:help clip\n:continue\n";
    let outcome =
        run(&program, "let y = 2;\nfn f(a) { a.nope() }\nbreakpoint();\nprint(\"on\");\n", "", lines);
    let all = outcome.all();
    assert!(outcome.success().out.ends_with("on\n"), "{all}");
    for expected in [
        "function `boom` with (int) not found\n --> [1]:1:3",
        "function `nope` with (int) not found\n --> a.rhai:2:13",
        "`f` called at [2]:1:1",
        "did you mean `:help`?",
    ] {
        assert!(outcome.err.contains(expected), "no `{expected}` in {all}");
    }
    assert!(outcome.out.contains("min(p, w) elementwise, not renormalised."), "{all}");
}

#[test]
fn a_breakpoint_in_a_module_that_only_the_command_line_names_pauses() {
    let program = Program::new();
    program.write(
        "scripts/half.rhai",
        "fn weights(h, w, options) {\n    let alpha = w;\n    breakpoint();\n    #{ alpha: alpha }\n}\n",
    );
    job(&program, "");
    let words = format!("script scripts/job.rhai {SHORT} --aggregator half --steps 2");
    let words = words.replace("--steps 6 ", "");
    let lines = "h.rows\nalpha = [0.25, 0.75];\n:continue\n:quit\n";
    let outcome = program.start(typed(&program, &words, lines)).wait();
    assert_eq!(outcome.code, Some(130), "{}", outcome.all());
    assert_eq!(outcome.out.matches("breakpoint at scripts/half.rhai:3:5").count(), 2, "{}", outcome.all());
    let log = program.read("run/log.jsonl");
    assert!(log.lines().next().unwrap().contains("\"alpha\":{\"brevity\":0.25,\"quality\":0.75}"), "{log}");
}

/// Log without time and memory, and the final weights.
fn result(program: &Program) -> (String, Vec<u8>) {
    let log = program.read("run/log.jsonl");
    let log = log.lines().map(|line| line.split(",\"time_ms\"").next().unwrap().to_owned() + "\n").collect();
    let weights = "run/checkpoints/step-6/model/weights.safetensors";
    (log, std::fs::read(program.path(weights)).unwrap())
}

/// Goes on with a stopped run and compares it with one that was never stopped.
fn resumes_to_the_same(program: &Program, whole: &Program) {
    let outcome = program.run("script scripts/job.rhai --resume run");
    outcome.success();
    let ((log, weights), (expected, expected_weights)) = (result(program), result(whole));
    assert_eq!(log, expected);
    assert!(weights == expected_weights, "the weights differ");
}

#[test]
fn a_run_that_is_quit_at_a_pause_resumes_to_the_same_bytes() {
    let breakpoint = "if run.step == 3 { breakpoint(); }";
    let whole = Program::new();
    job(&whole, breakpoint);
    // the input is at its end: the script goes on
    let outcome = whole.run(&format!("script scripts/job.rhai {SHORT}"));
    assert!(outcome.success().out.contains("breakpoint at scripts/job.rhai"), "{}", outcome.all());

    let quit = Program::new();
    job(&quit, breakpoint);
    let lines = "conflicts(gradients)\ncompare([\"linear\", \"mgda\"], gradients, args.weights)\n:quit\n";
    let outcome = quit.start(typed(&quit, &format!("script scripts/job.rhai {SHORT}"), lines)).wait();
    assert_eq!(outcome.code, Some(130), "{}", outcome.all());
    assert!(outcome.err.contains("stopped after step 4 of 6"), "{}", outcome.all());
    assert!(outcome.out.contains("| brevity · quality |"), "{}", outcome.all());
    resumes_to_the_same(&quit, &whole);

    // a condition that holds from step 2 on: the scope is that of the step, and assignments outlive it
    let when = Program::new();
    job(&when, "");
    let mut command = typed(
        &when,
        &format!("script scripts/job.rhai {SHORT}"),
        "[update.alpha.len(), batch.index, gradients.objectives]\nargs.beta = 0.2;\nlet seen = 41;\n:continue\nseen + 1\n:quit\n",
    );
    command.args(["--break-when", "cosine < 2.0 && step >= 2 && losses.quality > 0.0"]);
    let outcome = when.start(command).wait();
    assert_eq!(outcome.code, Some(130), "{}", outcome.all());
    assert!(outcome.out.contains("[2, 2, [\"brevity\", \"quality\"]]\n"), "{}", outcome.all());
    assert!(outcome.out.contains("\n42\n"), "{}", outcome.all());
    assert!(outcome.err.contains("stopped after step 4 of 6"), "{}", outcome.all());
}

#[test]
fn a_condition_that_is_wrong_is_an_error_with_its_place() {
    let program = Program::new();
    job(&program, "");
    let run = |when: &str| {
        let mut command = program.command(&format!("script scripts/job.rhai {SHORT}"));
        command.args(["--break-when", when]);
        program.start(command).wait()
    };
    run("cosine < ").fails(1, &[" --> --break-when:1:10"]);
    assert!(!program.path("run").exists(), "before the run began");
    run("step > 0 || cosin < 0.0")
        .fails(1, &["the row has no `cosin`", "--break-when:1:13", "did you mean `cosine`?"]);
    run("cosine").fails(1, &["the condition is float", "expected true or false"]);
    program
        .run("script scripts/job.rhai --steps 2 --break-when")
        .fails(2, &["`--break-when` stands without a value"]);
}

/// Starts with `--pause` and sends Ctrl-C once the text is printed.
fn interrupted(program: &Program, words: &str, lines: &str, text: &str) -> Running {
    let mut running = program.start(typed(program, &format!("script {words} --pause"), lines));
    running.until(|running| running.printed().contains(text));
    running.interrupt();
    running
}

#[test]
fn ctrl_c_pauses_a_plain_loop_with_its_variables() {
    let program = Program::new();
    program.write(
        "a.rhai",
        "let n = 0;\nlet turns = true;\nprint(\"begun\");\nwhile turns { n += 1; }\nprint(`done ${n > 0}`);\n",
    );
    let outcome = interrupted(&program, "a.rhai", "n > 0\nturns = false;\n:continue\n", "begun").wait();
    assert!(outcome.success().out.ends_with("true\ndone true\n"), "{}", outcome.all());
    assert!(outcome.out.contains("paused at a.rhai:4:"), "{}", outcome.all());
    // a second one stops a loop that has no statement to pause at
    program.write("a.rhai", "print(\"begun\");\nwhile true {}\n");
    let mut running = interrupted(&program, "a.rhai", "", "begun");
    running.until(|running| running.printed().contains("pausing at the next statement"));
    running.interrupt();
    running.wait().fails(130, &["note: stopped by Ctrl-C"]);
}

#[test]
fn ctrl_c_pauses_a_run_within_its_step() {
    let program = Program::new();
    job(&program, "print(`at ${run.step}`);");
    let words = format!("scripts/job.rhai {}", SHORT.replace("--steps 6", "--steps 4000"));
    let lines = "batch.size\nrun.step >= 2\n:next\n:quit\n";
    let outcome = interrupted(&program, &words, lines, "at 2\n").wait();
    assert_eq!(outcome.code, Some(130), "{}", outcome.all());
    assert!(outcome.out.contains("4\ntrue\n"), "{}", outcome.all());
    assert!(outcome.err.contains("note: stopped after step "), "{}", outcome.all());
    assert!(outcome.err.contains("scripts/job.rhai --resume run`"), "{}", outcome.all());
}
