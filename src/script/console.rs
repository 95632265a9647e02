//! What a script shows, without knowing how: the command line draws it, another program may collect it.

/// Where a script's output goes.
pub trait Console {
    /// One or more lines for the user.
    fn print(&self, text: &str);

    /// A loop has done `done` of `total` rounds; `message` is short and may change each time.
    fn progress(&self, done: usize, total: usize, message: &str);

    /// The loop has ended, however it ended.
    fn progress_end(&self);

    /// Columns of the terminal; `None` where the output is no terminal.
    fn width(&self) -> Option<usize>;

    /// Whether text may carry terminal colours.
    fn colour(&self) -> bool {
        false
    }
}

/// Shows nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Console for Silent {
    fn print(&self, _text: &str) {}

    fn progress(&self, _done: usize, _total: usize, _message: &str) {}

    fn progress_end(&self) {}

    fn width(&self) -> Option<usize> {
        None
    }
}
