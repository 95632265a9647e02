//! The built program, run in a temporary folder of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything takes on a busy machine; a program that hangs fails its test, it does not block it.
const PATIENCE: Duration = Duration::from_secs(180);

/// A folder with `data` and `scripts` of the repository, in which the program runs.
pub struct Program {
    dir: TempDir,
}

/// What a run of the program left.
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A program that runs.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Program {
    pub fn new() -> Self {
        let program = Self { dir: TempDir::new().unwrap() };
        program.copy("scripts/raco_clip.rhai", "scripts/raco_clip.rhai");
        for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            program.copy(&format!("data/model/{file}"), &format!("data/model/{file}"));
        }
        for file in ["train.jsonl", "prompts.jsonl"] {
            program.copy(&format!("data/summaries/{file}"), &format!("data/summaries/{file}"));
        }
        program
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A file of the repository.
    pub fn copy(&self, from: &str, to: &str) {
        self.write(to, fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(from)).unwrap());
    }

    /// `raco WORDS`; a word has no space.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_raco"));
        command.args(words.split_whitespace()).current_dir(self.dir.path());
        command.env("RACO_CACHE", self.path("cache")).env_remove("RACO_MEMORY_MIB").stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &str) -> Outcome {
        self.start(self.command(words)).wait()
    }

    pub fn start(&self, mut command: Command) -> Running {
        // files, not pipes: nobody has to read them while the program runs
        let number = fs::read_dir(self.dir.path()).unwrap().count();
        let (out, err) = (self.path(&format!("out-{number}")), self.path(&format!("err-{number}")));
        let (to_out, to_err) = (File::create(&out).unwrap(), File::create(&err).unwrap());
        Running { child: command.stdout(to_out).stderr(to_err).spawn().unwrap(), out, err }
    }
}

impl Running {
    /// Waits until `reached` holds or the program has ended by itself.
    pub fn until(&mut self, reached: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !reached(self) && self.ended().is_none() {
            assert!(begun.elapsed() < PATIENCE, "still waiting after {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the program has printed so far, both streams.
    pub fn printed(&self) -> String {
        [&self.out, &self.err].map(|path| fs::read_to_string(path).unwrap()).concat()
    }

    pub fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// As a crash: the program has no time to do anything.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn wait(mut self) -> Outcome {
        let begun = Instant::now();
        let status = loop {
            match self.ended() {
                Some(status) => break status,
                None if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
                None => {
                    self.child.kill().unwrap();
                    panic!("the program did not end within {PATIENCE:?}:\n{}", self.printed());
                }
            }
        };
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Outcome { code: status.code(), out: read(&self.out), err: read(&self.err) }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Outcome {
    pub fn all(&self) -> String {
        format!("exit code {:?}\n{}{}", self.code, self.out, self.err)
    }

    /// The program came to its end.
    pub fn success(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{}", self.all());
        self
    }

    /// The program ended with this exit code and one clear error of one screen that tells all of `expected`.
    pub fn fails(&self, code: i32, expected: &[&str]) {
        let all = self.all();
        assert_eq!(self.code, Some(code), "{all}");
        let title = if code == 130 { "note: " } else { "error: " };
        assert_eq!(self.err.lines().filter(|line| line.starts_with(title)).count(), 1, "{all}");
        assert!(self.err.lines().count() <= 24, "{all}");
        for text in ["panic", "RUST_BACKTRACE", "overflowed its stack", "internal"] {
            assert!(!self.err.contains(text), "`{text}` in {all}");
        }
        for text in expected {
            assert!(self.err.contains(text), "no `{text}` in {all}");
        }
        assert!(self.err.contains("\nhelp: ") || code == 130, "no help in {all}");
    }
}
