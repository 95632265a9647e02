//! What a looking function returns: tables to read, a picture and numbers to keep.

use std::path::Path;
use std::rc::Rc;

use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width, presets,
};
use rhai::{Array, Dynamic, Engine, ImmutableString, Map};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::run::{Table as Plain, write_whole};

use super::super::session::Session;
use super::super::value::{Answer, Opts, from_json, number, show, to_json, type_of, unknown};
use super::super::wrap::wrapped;
use super::report;
use super::text::{PAPER, cell};

/// Letters between the texts of two columns.
const BORDER: usize = 3;
/// Of the heat bars.
const BAR: usize = 10;
/// Okabe and Ito's vermillion and blue, told apart by the colour-blind too; readable on dark and on light.
const NEGATIVE: Color = Color::AnsiValue(166);
const POSITIVE: Color = Color::AnsiValue(32);

/// Prints as tables and notes; copies share it.
#[derive(Clone)]
pub(super) struct View(Rc<Inner>);

struct Inner {
    session: Rc<Session>,
    title: String,
    tables: Vec<Sheet>,
    notes: Vec<String>,
    picture: Option<Picture>,
    values: Map,
}

/// What draws the picture.
pub(super) type Picture = Box<dyn Fn(&Path) -> Result<()>>;

struct Sheet {
    title: String,
    head: Vec<String>,
    rows: Vec<Array>,
    /// Columns, and rows by their first cell, whose sign is coloured.
    signed: Vec<String>,
    /// Columns drawn as bars beside their numbers.
    bars: Vec<usize>,
}

impl Sheet {
    fn new(map: Map) -> Result<Self> {
        let mut options = Opts::new("tables", map);
        let title = options.text("title")?.unwrap_or_default();
        let head = options.texts("head")?.unwrap_or_default();
        let place = |name: String| {
            let found = head.iter().position(|known| *known == name);
            found.ok_or_else(|| unknown("column", &name, head.iter().map(String::as_str)))
        };
        let places = |names: Option<Vec<String>>| -> Result<Vec<usize>> {
            names.unwrap_or_default().into_iter().map(place).collect()
        };
        let (signed, bars) = (options.texts("signed")?.unwrap_or_default(), places(options.texts("bars")?)?);
        let given = options.host::<Array>("rows", "an array of arrays")?.unwrap_or_default();
        options.finish()?;
        let row = |(i, row): (usize, Dynamic)| match row.try_cast_result::<Array>() {
            Ok(row) if row.len() == head.len() => Ok(row),
            Ok(row) => Err(Error::new(format!(
                "row {i} of the view has {} cells, its head {}",
                row.len(),
                head.len()
            ))
            .help("give every row one cell a column")),
            Err(row) => {
                Err(Error::new(format!("row {i} of the view is {}, expected an array", type_of(&row)))
                    .help("give rows as arrays"))
            }
        };
        let rows = given.into_iter().enumerate().map(row).collect::<Result<Vec<Array>>>()?;
        let known: Vec<String> =
            head.iter().cloned().chain(rows.iter().filter_map(|row| row.first()).map(show)).collect();
        if let Some(name) = signed.iter().find(|name| !known.contains(name)) {
            return Err(unknown("column or row", name, known.iter().map(String::as_str)));
        }
        Ok(Self { title, head, rows, signed, bars })
    }

    fn text(&self, width: Option<usize>, colour: bool) -> String {
        let shown = self.shown(width.is_some());
        let room = width.unwrap_or(PAPER);
        let parts = self.parts(&shown, room).into_iter().map(|columns| {
            let mut table = Table::new();
            table
                .load_style(if width.is_some() {
                    presets::UTF8_FULL_CONDENSED
                } else {
                    presets::ASCII_MARKDOWN
                })
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(room.try_into().unwrap_or(u16::MAX));
            if colour {
                table.enforce_styling();
            } else {
                table.force_no_tty();
            }
            table.set_header(columns.iter().map(|&column| {
                let cell = Cell::new(&self.head[column]);
                if colour { cell.add_attribute(Attribute::Bold) } else { cell }
            }));
            // each column has a space on either side and a line; the table one line more
            let wide = |column: usize| widest(&self.head[column], &shown, column) + BORDER;
            let fits = columns.iter().map(|&column| wide(column)).sum::<usize>() < room;
            for (&column, drawn) in columns.iter().zip(table.column_iter_mut()) {
                let least = self.least(&shown, column) + BORDER - 1;
                let least = Width::Fixed(least.try_into().unwrap_or(u16::MAX));
                // a boundary alone may break a cell that has room
                drawn.set_constraint(match fits {
                    true => ColumnConstraint::ContentWidth,
                    false => ColumnConstraint::LowerBoundary(least),
                });
            }
            for row in &shown {
                table.add_row(columns.iter().map(|&column| row[column].cell(colour)));
            }
            table.to_string()
        });
        let title = (!self.title.is_empty()).then(|| self.title.clone());
        title.into_iter().chain(parts).collect::<Vec<_>>().join("\n")
    }

    /// The cells for a table of another language.
    fn plain(&self) -> Plain {
        let cell = |value: &Dynamic| match (value.as_int(), value.as_float()) {
            (Ok(n), _) => n.into(),
            (_, Ok(x)) if x.is_finite() => x.into(),
            _ if value.is_unit() => Value::Null,
            _ => show(value).into(),
        };
        let rows = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        Plain { title: self.title.clone(), head: self.head.clone(), rows }
    }

    fn shown(&self, terminal: bool) -> Vec<Vec<Shown>> {
        let largest = |column: usize| {
            let sizes = self.rows.iter().filter_map(|row| number(&row[column])).map(f64::abs);
            sizes.filter(|x| x.is_finite()).fold(0.0, f64::max)
        };
        let is_signed = |name: &str| self.signed.iter().any(|signed| signed == name);
        let cell = |row: &Array, column: usize| {
            let x = number(&row[column]).filter(|x| x.is_finite());
            let signed =
                is_signed(&self.head[column]) || row.first().is_some_and(|first| is_signed(&show(first)));
            let mut text = cell(&row[column]);
            let barred = self.bars.contains(&column);
            if let Some(x) = x.filter(|_| barred) {
                // signed columns are cosines and the like: their bars share the scale of 1
                let scale = if signed { largest(column).max(1.0) } else { largest(column) };
                text = format!("{text} {}", bar(x, scale, terminal));
            }
            Shown { text, right: x.is_some() && !barred, sign: x.filter(|_| signed).unwrap_or(0.0) }
        };
        self.rows.iter().map(|row| (0..row.len()).map(|column| cell(row, column)).collect()).collect()
    }

    /// Letters that a column needs in a line: whole numbers and words, short texts.
    fn least(&self, shown: &[Vec<Shown>], column: usize) -> usize {
        /// Text wider than this may wrap.
        const WRAPS: usize = 16;
        let words = self.head[column].split(' ').map(|word| word.chars().count());
        let cells = shown.iter().map(|row| {
            let letters = row[column].text.chars().count();
            if row[column].right { letters } else { letters.min(WRAPS) }
        });
        words.chain(cells).max().unwrap_or(0)
    }

    /// Columns of each part: a table that is too wide goes on below, its first column again on the left.
    fn parts(&self, shown: &[Vec<Shown>], room: usize) -> Vec<Vec<usize>> {
        let least = |column: usize| self.least(shown, column) + BORDER;
        let Some(first) = self.head.first().map(|_| least(0) + 1) else { return Vec::new() };
        let mut parts = vec![vec![0]];
        let mut used = first;
        for column in 1..self.head.len() {
            let width = least(column);
            if used + width > room && used > first {
                parts.push(vec![0]);
                used = first;
            }
            used += width;
            if let Some(part) = parts.last_mut() {
                part.push(column);
            }
        }
        parts
    }
}

/// Letters of the widest cell of a column, its head among them.
fn widest(head: &str, shown: &[Vec<Shown>], column: usize) -> usize {
    let cells = shown.iter().map(|row| row[column].text.as_str()).chain([head]);
    cells.flat_map(str::lines).map(|line| line.chars().count()).max().unwrap_or(0)
}

/// A cell as it stands in the table.
struct Shown {
    text: String,
    right: bool,
    /// Its sign is coloured.
    sign: f64,
}

impl Shown {
    fn cell(&self, colour: bool) -> Cell {
        let cell = Cell::new(&self.text);
        let cell = if self.right { cell.set_alignment(CellAlignment::Right) } else { cell };
        match self.sign {
            x if colour && x < 0.0 => cell.fg(NEGATIVE),
            x if colour && x > 0.0 => cell.fg(POSITIVE),
            _ => cell,
        }
    }
}

/// |x| / scale as a bar: blocks in a terminal, signs on paper.
fn bar(x: f64, scale: f64, terminal: bool) -> String {
    let share = if scale > 0.0 { (x.abs() / scale).min(1.0) } else { 0.0 };
    let full = (share * BAR as f64).round() as usize;
    let mark = match (terminal, x < 0.0) {
        (true, true) => "▒",
        (true, false) => "█",
        (false, true) => "-",
        (false, false) => "+",
    };
    format!("{}{}", mark.repeat(full), " ".repeat(BAR - full))
}

impl View {
    fn new(session: &Rc<Session>, map: Map) -> Result<Self> {
        let mut options = Opts::new("view", map);
        let title = options.text("title")?.unwrap_or_default();
        let notes = options.texts("notes")?.unwrap_or_default();
        let plot = options.host::<Map>("plot", "a map as `plot` takes it")?;
        let values = options.host::<Map>("values", "a map")?.unwrap_or_default();
        let tables = options.host::<Array>("tables", "an array of maps")?.unwrap_or_default();
        options.finish()?;
        let sheet = |table: Dynamic| match table.try_cast_result::<Map>() {
            Ok(map) => Sheet::new(map),
            Err(value) => {
                Err(Error::new(format!("a table of the view is {}, expected a map", type_of(&value)))
                    .help("give `#{ head: [...], rows: [...] }`"))
            }
        };
        let tables = tables.into_iter().map(sheet).collect::<Result<_>>()?;
        let draw = |plot: Map| -> Picture { Box::new(move |path| report::plot(plot.clone(), path)) };
        Ok(Self(Rc::new(Inner {
            session: session.clone(),
            title,
            tables,
            notes,
            picture: plot.map(draw),
            values,
        })))
    }

    /// A view of what Rust computed.
    pub fn of(
        session: &Rc<Session>,
        tables: Vec<Plain>,
        notes: Vec<String>,
        picture: Picture,
        values: Map,
    ) -> Result<Self> {
        let sheet = |table: Plain| -> Result<Sheet> {
            let row = |row: &Vec<Value>| row.iter().map(from_json).collect::<Result<Array>>();
            let rows = table.rows.iter().map(row).collect::<Result<Vec<Array>>>()?;
            Ok(Sheet { title: table.title, head: table.head, rows, signed: vec![], bars: vec![] })
        };
        let tables = tables.into_iter().map(sheet).collect::<Result<_>>()?;
        let (session, picture) = (session.clone(), Some(picture));
        Ok(Self(Rc::new(Inner { session, title: String::new(), tables, notes, picture, values })))
    }

    /// Tables and notes in another language of documents.
    fn document(&self, table: fn(&Plain) -> String, note: fn(&str) -> String) -> String {
        let tables = self.0.tables.iter().map(|sheet| table(&sheet.plain()));
        let title = (!self.0.title.is_empty()).then(|| note(&self.0.title));
        let notes = self.0.notes.iter().map(|text| note(text));
        title.into_iter().chain(tables).chain(notes).collect::<Vec<_>>().join("\n")
    }

    fn text(&self, width: Option<usize>, colour: bool) -> String {
        let view = &*self.0;
        let title = (!view.title.is_empty()).then(|| view.title.clone());
        let tables = view.tables.iter().map(|table| table.text(width, colour));
        let notes = view.notes.iter().map(|note| wrapped(note, width.unwrap_or(PAPER)));
        let lines: Vec<String> = title.into_iter().chain(tables).chain(notes).collect();
        lines.join("\n")
    }

    /// For the screen: coloured where it takes colours.
    fn screen(&self) -> String {
        let console = self.0.session.console();
        self.text(console.width(), console.colour())
    }

    fn csv(&self) -> Result<Vec<u8>> {
        let failed = |e: csv::Error| Error::internal(format!("cannot write CSV: {e}"));
        let mut writer = csv::Writer::from_writer(Vec::new());
        let exact = |value: &Dynamic| if value.is_unit() { String::new() } else { show(value) };
        match &self.0.tables[..] {
            [] => return Err(Error::new("this view has no table").help("save it as `.json`")),
            [only] => {
                writer.write_record(&only.head).map_err(failed)?;
                for row in &only.rows {
                    writer.write_record(row.iter().map(exact)).map_err(failed)?;
                }
            }
            // one number a line, so that tables of different columns stand in one file
            several => {
                writer.write_record(["table", "row", "column", "value"]).map_err(failed)?;
                for sheet in several {
                    for row in &sheet.rows {
                        let of = row.first().map(exact).unwrap_or_default();
                        for (column, value) in sheet.head.iter().zip(row).skip(1) {
                            let value = exact(value);
                            writer.write_record([&sheet.title, &of, column, &value]).map_err(failed)?;
                        }
                    }
                }
            }
        }
        writer.into_inner().map_err(|e| Error::internal(format!("cannot write CSV: {e}")))
    }

    /// The ending of `path` says what is written.
    fn save(&self, path: &Path) -> Result<()> {
        self.0.session.sandbox.borrow().check(path)?;
        match path.extension().and_then(|e| e.to_str()) {
            Some("svg") => match &self.0.picture {
                Some(picture) => picture(path),
                None => {
                    Err(Error::new("this view has no picture").help("save it as `.csv`, `.json` or `.txt`"))
                }
            },
            Some("csv") => write_whole(path, &self.csv()?),
            Some("json") => {
                let json = to_json(&Dynamic::from(self.0.values.clone()))?;
                write_whole(path, format!("{json:#}\n").as_bytes())
            }
            Some("txt") => write_whole(path, format!("{}\n", self.text(None, false)).as_bytes()),
            Some("md") => {
                write_whole(path, self.document(Plain::markdown, |note| format!("{note}\n")).as_bytes())
            }
            Some("tex") => {
                write_whole(path, self.document(Plain::latex, |note| format!("% {note}\n")).as_bytes())
            }
            _ => Err(Error::new("a view is saved as a picture, a table, numbers or text")
                .in_file(path)
                .help("end the name in `.svg`, `.csv`, `.json`, `.txt`, `.md` or `.tex`")),
        }
    }
}

pub(super) fn register(engine: &mut Engine, session: &Rc<Session>) {
    engine.register_type_with_name::<View>("View");
    let shared = session.clone();
    engine.register_fn("view", move |map: Map| -> Answer<View> { Ok(View::new(&shared, map)?) });
    engine.register_get("values", |view: &mut View| view.0.values.clone());
    engine.register_indexer_get(|view: &mut View, key: ImmutableString| -> Answer<Dynamic> {
        let values = &view.0.values;
        let known = || values.keys().map(|key| key.as_str());
        Ok(values.get(key.as_str()).cloned().ok_or_else(|| unknown("value of a view", &key, known()))?)
    });
    engine.register_fn("text", |view: &mut View| view.text(None, false));
    engine
        .register_fn("save", |view: &mut View, path: &str| -> Answer<()> { Ok(view.save(Path::new(path))?) });
    engine.register_fn("to_string", |view: &mut View| view.screen());
    engine.register_fn("to_debug", |view: &mut View| view.screen());
}
