//! Messages to the letter, and exit codes.

use std::time::{Duration, Instant};

use super::{interrupt, raco, run, stderr};

#[track_caller]
fn fails(source: &str, args: &[&str], code: i32, expected: &str) {
    let (output, _folder) = run(source, args);
    assert_eq!(stderr(&output), expected);
    assert_eq!(output.status.code(), Some(code));
}

#[test]
fn a_typo() {
    fails(
        "let weight = 1;\nprint(wieght);\n",
        &[],
        1,
        "\
error: variable `wieght` not found
 --> a.rhai:2:7
  |
2 | print(wieght);
  |       ^^^^^^
  |
help: did you mean `weight`?
",
    );
}

#[test]
fn an_error_within_functions_shows_the_stack() {
    fails(
        "fn inner(h) { h[[0, 3]] }\nfn outer() { inner(matrix([[1.0]])) }\nouter();\n",
        &[],
        1,
        "\
error: column `3` of a matrix with 1
 --> a.rhai:1:16
  |
1 | fn inner(h) { h[[0, 3]] }
  |                ^
  |
  = `inner` called at a.rhai:2:14
  = `outer` called at a.rhai:3:1
help: indices count from 0
",
    );
}

#[test]
fn an_error_within_the_library_points_at_the_users_line() {
    let file = include_str!("../../stdlib/aggregators/cagrad.rhai");
    let line = 1 + file.lines().position(|line| line.contains("= cagrad_dual(h, w, o.c);")).unwrap();
    fails(
        "let g = gradients([[1.0]], [\"a\"]);\naggregator(\"cagrad\", #{ c: 1.5 }).update(g, [1.0]);\n",
        &[],
        1,
        &format!(
            "\
error: `c` must be in [0, 1), found `1.5`
 --> a.rhai:2:35
  |
2 | aggregator(\"cagrad\", #{{ c: 1.5 }}).update(g, [1.0]);
  |                                   ^^^^^^
  |
  = in `weights`, at stdlib/aggregators/cagrad.rhai:{line}:16
help: give a radius such as 0.4
"
        ),
    );
}

#[test]
fn an_unknown_argument() {
    fails(
        "let a = args(#{ beta: 0.2, steps: 60 });",
        &["--betta", "0.1"],
        2,
        "\
error: unknown argument `--betta`
help: did you mean `--beta`? the script takes --beta 0.2 --steps 60
",
    );
}

#[test]
fn a_missing_script() {
    let folder = tempfile::tempdir().unwrap();
    let output = raco(folder.path(), &["nowhere.rhai"]).output().unwrap();
    assert_eq!(
        stderr(&output),
        "error: nowhere.rhai: cannot read the script: No such file or directory (os error 2)\nhelp: check the path\n"
    );
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn writing_elsewhere() {
    fails(
        "write_text(\"/tmp/raco-never.txt\", \"x\")",
        &[],
        1,
        "\
error: a script may not write `/tmp/raco-never.txt`
 --> a.rhai:1:1
  |
1 | write_text(\"/tmp/raco-never.txt\", \"x\")
  | ^^^^^^^^^^
  |
help: write below the folder of `start_run`, or take the path from the command line: `args(#{ out: … })` and `--out PATH`
",
    );
}

#[test]
fn memory_eaten_and_recursion_without_end() {
    for (script, text) in [
        ("let a = [0];\nloop { a += a; }\n", "size of array/BLOB is past the limit of a script"),
        (
            "let a = [];\nloop { a.push(\"x\"); a += a; }\n",
            "size of array/BLOB is past the limit of a script",
        ),
        ("let m = #{};\nfor i in 0..100000000 { m[`${i}`] = [m]; }\n", "is past the limit of a script"),
        ("let s = \"x\";\nloop { s += s; }\n", "length of string is past the limit of a script"),
        ("fn f(x) { f([x]) }\nf(1)\n", "functions call each other more than 64 levels deep"),
    ] {
        let (output, _folder) = run(script, &[]);
        assert!(stderr(&output).contains(text), "{script}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(1), "{script}");
    }
}

#[test]
fn an_endless_loop_is_stopped_by_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.rhai"), "print(\"begun\");\nloop {}\n").unwrap();
    let mut child = raco(folder.path(), &["a.rhai"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "begun\n");
    let begun = Instant::now();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(output.status.code(), Some(130));
    let expected = "\nstopping at the next safe point; Ctrl-C again stops at once\nnote: stopped by Ctrl-C\n";
    assert_eq!(stderr(&output), expected);
}

#[test]
fn help_of_a_script() {
    let (output, _folder) =
        run("// Shows a thing.\nlet a = args(#{ beta: 0.2 });\nprint(\"never\");\n", &["--help"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "Shows a thing.\n\nUsage: raco script a.rhai [--key value …]\n\n  --beta  0.2\n\n  --lib DIR  a folder with modules, given \
         before or after the script\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_folder_of_modules_before_or_after_the_script() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/two.rhai"), "fn two() { 2 }").unwrap();
    std::fs::write(folder.path().join("a.rhai"), "import \"two\" as t; print(t::two());").unwrap();
    for args in [["--lib", "mine", "a.rhai"], ["a.rhai", "--lib", "mine"]] {
        let output = raco(folder.path(), &args).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "2\n", "{}", stderr(&output));
    }
}
