//! Small vectors and matrices in f64: the mathematics of combining gradients, without any model.
//!
//! The letters are the paper's: m objectives with gradient rows `g_i`, `G_p = Σ p_i g_i`,
//!
//! - `h` = J Jᵀ [m, m], the Gramian of the rows, J = rows `g_i`
//! - `w` [m], the preference weights, in the simplex (≥ 0, sum 1)
//! - `p` [m], dual weights, in the simplex, and `p_clip = min(p, w)`
//! - `g0 = G_w`, and the radius `s = c‖g0‖`, c in [0, 1)
//! - `alpha` [m], row weights of the update Jᵀ alpha
//!
//! Every function is scale free: rows of norm 1e-150 and 1e150 are as good as rows of norm 1, tolerances are
//! relative to the rows they concern, and a weight that is zero is exactly 0. Every solver returns the
//! certificate of its answer. A row of norm below 1.5e-154 (its square is subnormal) counts as zero.

mod bootstrap;
mod cagrad;
mod cone;
mod eigen;
mod front;
mod gram_eigen;
mod gramian;
mod hull;
mod least_squares;
mod matrix;
mod min_norm;
mod nash;
mod nearest;
mod simplex;
mod statistics;

pub use bootstrap::{Bootstrap, bootstrap};
pub use cagrad::{CagradDual, cagrad_dual};
pub use cone::{ConeProjection, cone_project, cone_project_each};
pub use eigen::{Eigen, PseudoInverse, Solution, eigh, pinv, pinv_cut, solve};
pub use front::{
    Coverage, Spread, additive_epsilon, hypervolume, igd, igd_plus, pareto_front, spread, weight_coverage,
};
pub use gram_eigen::gram_eigh;
pub use gramian::{cosines, norm, row_norms};
pub use matrix::Matrix;
pub use min_norm::{MinNorm, min_norm_point};
pub use nash::{FairScaling, fair_scaling, nash_bargaining};
pub use simplex::{Given, clip, preference_weights, simplex_project};
pub use statistics::{Interval, SignFlip, bootstrap_t, sign_flip, t_interval, t_quantile, wilson_interval};
