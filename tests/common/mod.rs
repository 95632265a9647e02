//! What several tests share.

pub mod families;
pub mod oracle;
pub mod program;
pub mod random;
