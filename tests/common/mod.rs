//! What several tests share.

pub mod families;
pub mod hub;
pub mod oracle;
pub mod program;
pub mod random;
