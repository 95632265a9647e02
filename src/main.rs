//! The `raco` program: a thin client of the library.

fn main() {
    std::process::exit(raco::cli::run(std::env::args_os()));
}
