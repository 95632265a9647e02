//! The `raco` program: a thin client of the library.

#[cfg(unix)]
#[global_allocator]
static MEMORY: raco::recycle::Recycler = raco::recycle::Recycler;

fn main() {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // candle's own thread pool spins at its barriers and takes the processors from our kernels, which use rayon
        // SAFETY: this is the only thread yet, so nobody reads the environment meanwhile.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("CANDLE_NUM_THREADS", "1")
        };
    }
    std::process::exit(raco::cli::run(std::env::args_os()));
}
