//! `Matrix`, sums over arrays, and the primitives that aggregators compose.

use std::cmp::Ordering;

use rhai::{Array, Dynamic, Engine, FnPtr, Map, NativeCallContext};

use crate::error::{Error, Result};
use crate::math::{self, Matrix};

use super::super::value::{Answer, array, count, floats, length, number, show};

pub(super) fn register(engine: &mut Engine) {
    engine.register_type_with_name::<Matrix>("Matrix");
    engine.register_fn("matrix", |rows: Array| -> Answer<Matrix> { Ok(matrix(&rows)?) });
    engine.register_get("rows", |h: &mut Matrix| h.rows() as i64);
    engine.register_get("cols", |h: &mut Matrix| h.cols() as i64);
    engine.register_indexer_get(|h: &mut Matrix, at: Array| -> Answer<f64> {
        let (i, j) = entry(h, &at)?;
        Ok(h[(i, j)])
    });
    engine.register_indexer_set(|h: &mut Matrix, at: Array, value: Dynamic| -> Answer<()> {
        let at = entry(h, &at)?;
        h[at] = number(&value).ok_or_else(|| {
            Error::new(format!("a matrix entry is `{}`, expected a number", show(&value)))
                .help("set a number")
        })?;
        Ok(())
    });
    engine.register_fn("row", |h: &mut Matrix, i: i64| -> Answer<Array> {
        Ok(array(h.row(index(i, h.rows(), "row")?)))
    });
    engine.register_fn("diagonal", |h: &mut Matrix| -> Array {
        (0..h.rows().min(h.cols())).map(|i| Dynamic::from(h[(i, i)])).collect()
    });
    engine.register_fn("to_array", |h: &mut Matrix| -> Array {
        (0..h.rows()).map(|i| Dynamic::from(array(h.row(i)))).collect()
    });
    engine.register_fn("to_string", |h: &mut Matrix| print(h));
    engine.register_fn("to_debug", |h: &mut Matrix| print(h));
    engine.register_fn("==", |a: Matrix, b: Matrix| a == b);
    engine.register_fn("*", |h: Matrix, v: Array| -> Answer<Array> {
        Ok(array(&h.mul_vec(&floats(&v, "array")?)?))
    });
    engine.register_fn("*", |a: Matrix, b: Matrix| -> Answer<Matrix> { Ok(a.mul(&b)?) });
    engine.register_fn("*", |h: Matrix, x: f64| scale(&h, x));
    engine.register_fn("*", |x: f64, h: Matrix| scale(&h, x));

    engine.register_fn("transposed", |h: &mut Matrix| h.transposed());
    engine.register_fn("identity", |n: i64| -> Answer<Matrix> {
        Ok(Matrix::from_diagonal(&vec![1.0; side(n)?]))
    });
    engine.register_fn("diagonal_matrix", |v: Array| -> Answer<Matrix> {
        side(v.len() as i64)?;
        Ok(Matrix::from_diagonal(&floats(&v, "array")?))
    });

    engine.register_fn("gram", |h: &mut Matrix| h.gram());
    engine.register_fn("row_norms", |h: &mut Matrix| -> Answer<Array> { Ok(array(&math::row_norms(h)?)) });
    engine.register_fn("cosines", |h: &mut Matrix| -> Answer<Matrix> { Ok(math::cosines(h)?) });
    engine.register_fn("norm", |h: &mut Matrix, p: Array| -> Answer<f64> {
        Ok(math::norm(h, &floats(&p, "p")?)?)
    });
    primitives(engine);
    linear(engine);

    comparisons(engine);
    engine.register_fn("sort", sort);
    // Rhai's `log` has base 10; a loss on paper, and `log` of a tensor, mean the natural one
    engine.register_fn("log", |x: f64| x.ln());
    engine.register_fn("log10", |x: f64| x.log10());
    engine.register_fn("sum", |v: Array| -> Answer<f64> { Ok(floats(&v, "array")?.iter().sum()) });
    engine.register_fn("mean", |v: Array| -> Answer<f64> {
        let v = floats(&v, "array")?;
        if v.is_empty() {
            return Err(Error::new("mean of an empty array").help("test `array.is_empty()` first").into());
        }
        Ok(v.iter().sum::<f64>() / v.len() as f64)
    });
    engine.register_fn("std", |v: Array| -> Answer<f64> {
        let v = floats(&v, "array")?;
        if v.len() < 2 {
            return Ok(0.0);
        }
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        Ok((v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (v.len() - 1) as f64).sqrt())
    });
    engine.register_fn("median", |v: Array| -> Answer<f64> {
        let mut v = floats(&v, "array")?;
        v.sort_by(f64::total_cmp);
        let Some(last) = v.len().checked_sub(1) else {
            return Err(Error::new("median of an empty array").help("test `array.is_empty()` first").into());
        };
        Ok(0.5 * v[last / 2] + 0.5 * v[v.len() / 2])
    });
    engine.register_fn("softmax", |v: Array| -> Answer<Array> {
        let v = floats(&v, "array")?;
        let largest = v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let e: Vec<f64> = v.iter().map(|x| (x - largest).exp()).collect();
        let sum: f64 = e.iter().sum();
        Ok(e.iter().map(|e| Dynamic::from(e / sum)).collect())
    });
    engine.register_fn("argsort", |v: Array| -> Answer<Array> {
        let v = floats(&v, "array")?;
        let mut order: Vec<usize> = (0..v.len()).collect();
        order.sort_by(|i, j| v[*i].total_cmp(&v[*j]));
        Ok(order.into_iter().map(|i| Dynamic::from(i as i64)).collect())
    });
    engine.register_fn("dot", |a: Array, b: Array| -> Answer<f64> {
        let (a, b) = (floats(&a, "first array")?, floats(&b, "second array")?);
        same_length(&a, &b)?;
        Ok(a.iter().zip(&b).map(|(x, y)| x * y).sum())
    });
    engine.register_fn("norm", |v: Array| -> Answer<f64> {
        Ok(floats(&v, "array")?.iter().map(|x| x * x).sum::<f64>().sqrt())
    });
    engine.register_fn("minimum", |v: Array| -> Answer<f64> { extreme(&v, f64::min) });
    engine.register_fn("maximum", |v: Array| -> Answer<f64> { extreme(&v, f64::max) });
    engine.register_fn("scaled", |v: Array, x: f64| -> Answer<Array> {
        Ok(floats(&v, "array")?.iter().map(|y| Dynamic::from(x * y)).collect())
    });
    engine.register_fn("added", |a: Array, b: Array| -> Answer<Array> {
        let (a, b) = (floats(&a, "first array")?, floats(&b, "second array")?);
        same_length(&a, &b)?;
        Ok(a.iter().zip(&b).map(|(x, y)| Dynamic::from(x + y)).collect())
    });
    engine.register_fn("filled", |n: i64, x: f64| -> Answer<Array> {
        Ok(vec![Dynamic::from(x); length(n, "the length")?])
    });
}

/// Floats compare exactly: Rhai's own comparisons allow an error of 2e-16, which is absolute next to 0, so that
/// `1e-20 > 0.0` would be false and no method in Rhai could be scale free.
fn comparisons(engine: &mut Engine) {
    // without this, operators on numbers never look at registered functions
    engine.set_fast_operators(false);
    type Compare = fn(&f64, &f64) -> bool;
    let all: [(&str, Compare); 6] =
        [("==", f64::eq), ("!=", f64::ne), ("<", f64::lt), (">", f64::gt), ("<=", f64::le), (">=", f64::ge)];
    for (name, compare) in all {
        engine.register_fn(name, move |a: f64, b: f64| compare(&a, &b));
        engine.register_fn(name, move |a: i64, b: f64| compare(&(a as f64), &b));
        engine.register_fn(name, move |a: f64, b: i64| compare(&a, &(b as f64)));
    }
}

/// Sorts by a function of two values whose result is negative, 0 or positive, an int or a float; Rhai's own takes
/// floats for 0 and leaves the order as it is.
fn sort(context: NativeCallContext, values: &mut Array, order: FnPtr) -> Answer<()> {
    let mut failed = None;
    let compare = |a: &Dynamic, b: &Dynamic| -> Answer<Ordering> {
        let sign: Dynamic = order.call_within_context(&context, (a.clone(), b.clone()))?;
        let sign = number(&sign).and_then(|x| x.partial_cmp(&0.0));
        Ok(sign.ok_or_else(|| {
            Error::new("the order of `sort` is no number").help("return a negative, zero or positive number")
        })?)
    };
    values.sort_by(|a, b| match failed {
        Some(_) => Ordering::Equal,
        None => compare(a, b).unwrap_or_else(|error| {
            failed = Some(error);
            Ordering::Equal
        }),
    });
    failed.map_or(Ok(()), Err)
}

/// The parts that aggregators are composed of.
fn primitives(engine: &mut Engine) {
    engine.register_fn("simplex_project", |v: Array| -> Answer<Array> {
        Ok(array(&math::simplex_project(&floats(&v, "v")?)?))
    });
    engine.register_fn("clip", |p: Array, w: Array| -> Answer<Array> {
        Ok(array(&math::clip(&floats(&p, "p")?, &floats(&w, "w")?)?))
    });
    engine.register_fn("cagrad_dual", |h: Matrix, w: Array, c: Dynamic| -> Answer<Map> {
        let c = number(&c).ok_or_else(|| {
            Error::new(format!("`c` is `{}`, expected a number", show(&c))).help("give c in [0, 1)")
        })?;
        let dual = math::cagrad_dual(&h, &floats(&w, "w")?, c)?;
        let numbers = [
            ("value", dual.value),
            ("gap", dual.gap),
            ("g0_norm", dual.g0_norm),
            ("gp_norm", dual.gp_norm),
            ("radius", dual.radius),
        ];
        let mut out: Map = numbers.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        out.insert("p".into(), array(&dual.p).into());
        Ok(out)
    });
    engine.register_fn("min_norm_point", |h: Matrix| -> Answer<Map> {
        let point = math::min_norm_point(&h)?;
        let numbers = [("norm", point.norm), ("gap", point.gap)];
        let mut out: Map = numbers.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        out.insert("p".into(), array(&point.p).into());
        Ok(out)
    });
    engine.register_fn("cone_project", |h: Matrix, u: Array| -> Answer<Map> {
        let found = math::cone_project(&h, &floats(&u, "u")?)?;
        Ok(weights(&found.alpha, found.gap))
    });
    engine.register_fn("cone_project", |h: Matrix, u: Matrix| -> Answer<Map> {
        let found = math::cone_project_each(&h, &u)?;
        let gap = found.iter().fold(0.0_f64, |gap, f| gap.max(f.gap));
        let alpha = found.into_iter().map(|f| f.alpha).collect::<Vec<_>>();
        let alpha = Dynamic::from(Matrix::from_rows(&alpha)?);
        Ok([("alpha".into(), alpha), ("gap".into(), gap.into())].into())
    });
    engine.register_fn("nash_bargaining", |h: Matrix| -> Answer<Map> {
        let found = math::nash_bargaining(&h)?;
        Ok(weights(&found.alpha, found.gap))
    });
    engine.register_fn("fair_scaling", |h: Matrix, a: Dynamic| -> Answer<Map> {
        let found = math::fair_scaling(&h, given(&a, "a")?)?;
        Ok(weights(&found.alpha, found.gap))
    });
}

/// Eigenvectors, inverses and systems.
fn linear(engine: &mut Engine) {
    engine.register_fn("eigh", |h: Matrix| -> Answer<Map> { Ok(eigen(math::eigh(&h)?)) });
    engine.register_fn("gram_eigh", |h: Matrix| -> Answer<Map> { Ok(eigen(math::gram_eigh(&h)?)) });
    engine.register_fn("pinv", |h: Matrix| -> Answer<Matrix> { Ok(math::pinv(&h)?.matrix) });
    engine.register_fn("pinv", |h: Matrix, rtol: Dynamic| -> Answer<Matrix> {
        Ok(math::pinv_cut(&h, given(&rtol, "rtol")?)?)
    });
    engine.register_fn("solve", |a: Matrix, b: Array| -> Answer<Array> {
        Ok(array(&math::solve(&a, &floats(&b, "b")?)?.x))
    });
}

/// `#{ values, vectors, gap }`.
fn eigen(found: math::Eigen) -> Map {
    let values = Dynamic::from(array(&found.values));
    let vectors = Dynamic::from(found.vectors);
    [("values".into(), values), ("vectors".into(), vectors), ("gap".into(), found.gap.into())].into()
}

/// `#{ alpha, gap }`.
fn weights(alpha: &[f64], gap: f64) -> Map {
    [("alpha".into(), array(alpha).into()), ("gap".into(), gap.into())].into()
}

fn given(x: &Dynamic, name: &str) -> Result<f64> {
    number(x).ok_or_else(|| {
        Error::new(format!("`{name}` is `{}`, expected a number", show(x))).help("give a number")
    })
}

/// The side of a square matrix that a script makes.
fn side(n: i64) -> Result<usize> {
    length(n.saturating_mul(n), "the size of the matrix")?;
    count(n, "the side of the matrix")
}

fn extreme(values: &[Dynamic], pick: fn(f64, f64) -> f64) -> Answer<f64> {
    let values = floats(values, "array")?;
    let found = values.iter().copied().reduce(pick);
    Ok(found
        .ok_or_else(|| Error::new("an empty array has no extreme").help("test `array.is_empty()` first"))?)
}

fn same_length(a: &[f64], b: &[f64]) -> Result<()> {
    if a.len() == b.len() {
        return Ok(());
    }
    Err(Error::new(format!("arrays of {} and {} numbers", a.len(), b.len())).help("use arrays of one length"))
}

fn index(i: i64, len: usize, what: &str) -> Result<usize> {
    usize::try_from(i).ok().filter(|&i| i < len).ok_or_else(|| {
        Error::new(format!("{what} `{i}` of a matrix with {len}")).help("indices count from 0")
    })
}

fn entry(h: &Matrix, at: &[Dynamic]) -> Result<(usize, usize)> {
    match at.iter().map(|i| i.as_int().ok()).collect::<Option<Vec<_>>>().as_deref() {
        Some(&[i, j]) => Ok((index(i, h.rows(), "row")?, index(j, h.cols(), "column")?)),
        _ => Err(Error::new("a matrix entry is read by two ints").help("write `h[[i, j]]`")),
    }
}

fn matrix(rows: &[Dynamic]) -> Result<Matrix> {
    let rows = rows.iter().enumerate().map(|(i, row)| match row.read_lock::<Array>() {
        Some(row) => floats(&row, &format!("row {i}")),
        None => Err(Error::new(format!("row {i} of the matrix is `{}`, expected an array", show(row)))
            .help("write `matrix([[1.0, 0.0], [0.0, 1.0]])`")),
    });
    Matrix::from_rows(&rows.collect::<Result<Vec<_>>>()?)
}

fn scale(h: &Matrix, x: f64) -> Matrix {
    let mut out = h.clone();
    for i in 0..h.rows() {
        (0..h.cols()).for_each(|j| out[(i, j)] *= x);
    }
    out
}

fn print(h: &Matrix) -> String {
    let row = |i: usize| {
        let cells: Vec<String> = h.row(i).iter().map(|x| format!("{x:.4e}")).collect();
        format!("[{}]", cells.join(", "))
    };
    format!("Matrix([{}])", (0..h.rows()).map(row).collect::<Vec<_>>().join(", "))
}
