//! Matrices of the contract, drawn at random.

use proptest::prelude::*;
pub use raco::script::contract::{Case, FAMILIES, Family, case, mix};

/// Cases of every family with `m` rows; weights inside the simplex, with zeros, or one-hot.
pub fn cases(m: impl Strategy<Value = usize>) -> impl Strategy<Value = Case> {
    (proptest::sample::select(FAMILIES.to_vec()), m, any::<u64>())
        .prop_map(|(family, m, seed)| case(family, m, seed))
}
