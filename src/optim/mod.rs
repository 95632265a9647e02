//! The optim layer.
