//! Tables for papers and pages: Markdown, LaTeX.

use serde_json::Value;

/// Rows of numbers, texts and empty cells (`null`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// Above the table.
    pub title: String,
    /// Names of the columns.
    pub head: Vec<String>,
    /// As many cells a row as the head has.
    pub rows: Vec<Vec<Value>>,
}

/// A number with four digits after the point, or three significant ones where it is small or large.
pub fn four_digits(x: f64) -> String {
    if x != 0.0 && (x.abs() < 1e-3 || x.abs() >= 1e6) { format!("{x:.3e}") } else { format!("{x:.4}") }
}

/// A cell as text: floats with four digits.
fn shown(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(n) if n.is_f64() => four_digits(n.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    }
}

impl Table {
    /// Columns in which all cells that are not empty are numbers stand at the right.
    fn right(&self, column: usize) -> bool {
        let mut cells = self.rows.iter().map(|row| &row[column]).filter(|cell| !cell.is_null()).peekable();
        cells.peek().is_some() && cells.all(Value::is_number)
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let plain = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let title = if self.title.is_empty() { String::new() } else { format!("**{}**\n\n", self.title) };
        let rule =
            (0..self.head.len()).map(|i| if self.right(i) { "---:" } else { "---" }.to_owned()).collect();
        let head = line(self.head.iter().map(|name| plain(name)).collect());
        let rows = self.rows.iter().map(|row| line(row.iter().map(|cell| plain(&shown(cell))).collect()));
        [title, head, line(rule)].into_iter().chain(rows).collect()
    }

    /// The table as LaTeX, with the rules of the package `booktabs`.
    pub fn latex(&self) -> String {
        let line = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
        let columns: String = (0..self.head.len()).map(|i| if self.right(i) { 'r' } else { 'l' }).collect();
        let caption = if self.title.is_empty() {
            String::new()
        } else {
            format!("\\caption{{{}}}\n", escaped(&self.title))
        };
        let head = line(self.head.iter().map(|name| escaped(name)).collect());
        let rows: String = self
            .rows
            .iter()
            .map(|row| line(row.iter().map(|cell| escaped(&shown(cell))).collect()))
            .collect();
        format!(
            "\\begin{{table}}\n\\centering\n{caption}\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head}\\midrule\n{rows}\
             \\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
        )
    }
}

/// Text as LaTeX reads it.
fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => format!("\\{c}"),
            '\\' => "\\textbackslash{}".into(),
            '~' => "\\textasciitilde{}".into(),
            '^' => "\\textasciicircum{}".into(),
            '<' | '>' | '|' => format!("${c}$"),
            'Δ' => "$\\Delta$".into(),
            'α' => "$\\alpha$".into(),
            'β' => "$\\beta$".into(),
            'ε' => "$\\varepsilon$".into(),
            'σ' => "$\\sigma$".into(),
            'τ' => "$\\tau$".into(),
            '±' => "$\\pm$".into(),
            '−' => "$-$".into(),
            '·' => "$\\cdot$".into(),
            '≤' => "$\\le$".into(),
            '≥' => "$\\ge$".into(),
            '⁺' => "$^+$".into(),
            '‖' => "$\\|$".into(),
            '₀'..='₉' => format!("$_{}$", c as u32 - '₀' as u32),
            'ᵢ' => "$_i$".into(),
            '⟨' => "$\\langle$".into(),
            '⟩' => "$\\rangle$".into(),
            '\n' => " ".into(),
            c => c.to_string(),
        })
        .collect()
}
