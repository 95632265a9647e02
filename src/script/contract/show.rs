//! Numbers, vectors and matrices as text.

/// A vector as a script writes it, to six digits.
pub(super) fn vector(values: &[f64]) -> String {
    const MOST: usize = 12;
    let mut items: Vec<String> = values.iter().take(MOST).map(|x| short(*x)).collect();
    if values.len() > MOST {
        items.push(format!("… {} more", values.len() - MOST));
    }
    format!("[{}]", items.join(", "))
}

/// A number to six digits.
pub(super) fn short(x: f64) -> String {
    if x == 0.0 || !x.is_finite() || (1e-4..1e6).contains(&x.abs()) {
        let digits = if x == 0.0 || !x.is_finite() { 1 } else { (5 - x.abs().log10().floor() as i32).max(1) };
        let text = format!("{x:.*}", digits as usize);
        let text = text.trim_end_matches('0');
        return if text.ends_with('.') { format!("{text}0") } else { text.to_owned() };
    }
    let text = format!("{x:.5e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}e{power}")
}

/// A number in full, as a script reads it.
pub(super) fn full(x: f64) -> String {
    format!("{x:?}")
}

/// Rows in full with columns under each other.
pub(super) fn matrix(rows: &[Vec<f64>]) -> Vec<String> {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|x| full(*x)).collect()).collect();
    let wide = |k: usize| cells.iter().map(|row| row[k].len()).max().unwrap_or(0);
    cells
        .iter()
        .map(|row| {
            let row: Vec<String> =
                row.iter().enumerate().map(|(k, cell)| format!("{cell:>0$}", wide(k))).collect();
            format!("[{}]", row.join("  "))
        })
        .collect()
}
