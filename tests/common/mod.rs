//! What several tests share.

pub mod families;
pub mod oracle;
pub mod random;
