//! `rng(seed)`: the same numbers on every machine.

use std::cell::RefCell;
use std::rc::Rc;

use rand::seq::SliceRandom;
use rand::{Rng as _, RngCore as _, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rhai::{Array, Dynamic, Engine};

use crate::engine::Gradient;
use crate::error::Error;

use super::super::value::{Answer, count, length};

/// A seeded generator; copies draw from the same stream.
#[derive(Clone)]
struct Rng {
    seed: i64,
    inner: Rc<RefCell<ChaCha8Rng>>,
}

impl Rng {
    fn new(seed: i64) -> Self {
        Self { seed, inner: Rc::new(RefCell::new(ChaCha8Rng::seed_from_u64(seed as u64))) }
    }

    fn uniform(&self) -> f64 {
        self.inner.borrow_mut().random()
    }

    /// Box and Muller's transform, the cosine half.
    fn normal(&self) -> f64 {
        let (u, v): (f64, f64) = self.inner.borrow_mut().random();
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    fn int(&self, low: i64, high: i64) -> Answer<i64> {
        if low > high {
            return Err(Error::new(format!("`int({low}, {high})` has its bounds the wrong way round"))
                .help("give the lower bound first; both are included")
                .into());
        }
        Ok(self.inner.borrow_mut().random_range(low..=high))
    }
}

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Rng>("Rng");
    engine.register_fn("rng", Rng::new);
    engine.register_fn("to_string", |r: &mut Rng| format!("Rng(seed {})", r.seed));
    engine.register_fn("to_debug", |r: &mut Rng| format!("Rng(seed {})", r.seed));
    engine.register_fn("uniform", |r: &mut Rng| r.uniform());
    engine.register_fn("uniform", |r: &mut Rng, low: f64, high: f64| low + (high - low) * r.uniform());
    engine.register_fn("uniform", |r: &mut Rng, like: Gradient| -> Answer<Gradient> {
        let seed = r.inner.borrow_mut().next_u64();
        Ok(like.uniform(seed)?)
    });
    engine.register_fn("normal", |r: &mut Rng| r.normal());
    engine.register_fn("int", |r: &mut Rng, low: i64, high: i64| r.int(low, high));
    engine.register_fn("chance", |r: &mut Rng, p: f64| r.uniform() < p);
    engine.register_fn("choice", |r: &mut Rng, items: Array| -> Answer<Dynamic> {
        if items.is_empty() {
            return Err(Error::new("`choice` of an empty array").help("give it at least one value").into());
        }
        let i = r.inner.borrow_mut().random_range(0..items.len());
        Ok(items[i].clone())
    });
    engine.register_fn("shuffle", |r: &mut Rng, mut items: Array| -> Array {
        items.shuffle(&mut *r.inner.borrow_mut());
        items
    });
    engine.register_fn("permutation", |r: &mut Rng, n: i64| -> Answer<Array> {
        let mut order: Vec<i64> = (0..length(n, "the length of a permutation")? as i64).collect();
        order.shuffle(&mut *r.inner.borrow_mut());
        Ok(order.into_iter().map(Dynamic::from).collect())
    });
    engine.register_fn("sample", |r: &mut Rng, items: Array, n: i64| -> Answer<Array> {
        let n = count(n, "the size of a sample")?;
        if n > items.len() {
            return Err(Error::new(format!("a sample of {n} from {} values", items.len()))
                .help("a sample takes each value once at most")
                .into());
        }
        let mut items = items;
        let (chosen, _) = items.partial_shuffle(&mut *r.inner.borrow_mut(), n);
        Ok(chosen.to_vec())
    });
    engine.register_fn("fork", |r: &mut Rng, stream: i64| {
        let mut inner = ChaCha8Rng::seed_from_u64(r.seed as u64);
        inner.set_stream(stream as u64 + 1);
        Rng { seed: r.seed, inner: Rc::new(RefCell::new(inner)) }
    });
}
