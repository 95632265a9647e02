//! Rows of a Parquet file, by the record reader of the `parquet` crate.
//!
//! Columns are the keys of the layouts: strings, numbers, lists of `{role, content}`, and `objectives` as a
//! struct, a map, or columns `objectives.NAME`. A null is an absent key, of a label "unlabelled".

use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, Type as Physical};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::Type;
use serde_json::{Map, Number, Value};

use super::files::{Take, text};
use super::layouts;
use crate::error::{Error, Result, contained, io_error};

pub(super) fn records(path: &Path, take: &mut Take) -> Result<()> {
    contained(|| decode(path, take)).unwrap_or_else(|panic| Err(broken(path, format!("broken: {panic}"))))
}

fn broken(path: &Path, what: String) -> Error {
    Error::new(what).in_file(path).help("fetch or write the file again")
}

fn decode(path: &Path, take: &mut Take) -> Result<()> {
    let file = std::fs::File::open(path).map_err(|e| io_error(&e, "read the rows", path))?;
    let broken = |what: String| broken(path, what);
    let reader = SerializedFileReader::new(file).map_err(|e| broken(format!("not a Parquet file: {e}")))?;
    let schema = reader.metadata().file_metadata().schema();
    let columns = readable(schema).map_err(|e| e.in_file(path))?;
    let mut row = 0;
    for index in 0..reader.num_row_groups() {
        let group = reader
            .get_row_group(index)
            .map_err(|e| broken(format!("row group {index} cannot be read: {e}")))?;
        let records = group.get_row_iter(Some(project(schema, &columns)?));
        let records = records.map_err(|e| culprit(&*group, index, schema, &columns, &e).in_file(path))?;
        for record in records {
            row += 1;
            match record {
                Ok(record) => take(row, None, object(record)),
                Err(e) => return Err(culprit(&*group, index, schema, &columns, &e).in_file(path)),
            }
        }
    }
    Ok(())
}

/// The columns that the layouts may use and the record reader has values for.
///
/// # Errors
/// A column of content or labels whose type means nothing here.
fn readable(schema: &Type) -> Result<Vec<Arc<Type>>> {
    let (read, left): (Vec<_>, Vec<_>) = schema.get_fields().iter().cloned().partition(|c| has_values(c));
    match left.iter().find(|c| layouts::is_content(c.name()) || layouts::is_label(c.name())) {
        Some(column) => {
            Err(Error::new(format!("column `{}` is of a type that rows do not have", column.name()))
                .help("write it as text, numbers, or a list of {role, content}"))
        }
        None => Ok(read),
    }
}

/// Whether the record reader knows what to do with a column; it panics where it does not.
fn has_values(column: &Type) -> bool {
    if !column.is_primitive() {
        let fields = column.get_fields();
        let repeated = |t: &Type| t.get_basic_info().repetition() == parquet::basic::Repetition::REPEATED;
        let nested = match column.get_basic_info().converted_type() {
            ConvertedType::LIST => fields.len() == 1 && repeated(&fields[0]),
            ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE => {
                fields.len() == 1
                    && repeated(&fields[0])
                    && fields[0].is_group()
                    && matches!(fields[0].get_fields().len(), 1 | 2)
            }
            _ => !fields.is_empty(),
        };
        return nested && fields.iter().all(|field| has_values(field));
    }
    use ConvertedType as C;
    let converted = column.get_basic_info().converted_type();
    match column.get_physical_type() {
        Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE => true,
        Physical::INT32 => {
            matches!(
                converted,
                C::NONE | C::INT_8 | C::INT_16 | C::INT_32 | C::UINT_8 | C::UINT_16 | C::UINT_32
            )
        }
        Physical::INT64 => matches!(converted, C::NONE | C::INT_64 | C::UINT_64),
        Physical::BYTE_ARRAY => matches!(converted, C::NONE | C::UTF8 | C::ENUM | C::JSON),
        Physical::FIXED_LEN_BYTE_ARRAY | Physical::INT96 => false,
    }
}

fn project(schema: &Type, columns: &[Arc<Type>]) -> Result<Type> {
    Type::group_type_builder(schema.name())
        .with_fields(columns.to_vec())
        .build()
        .map_err(|e| Error::internal(format!("the columns of a Parquet file cannot be chosen: {e}")))
}

/// The column and the row at fault: the first that fails when it is read alone.
fn culprit(
    group: &dyn RowGroupReader,
    index: usize,
    schema: &Type,
    columns: &[Arc<Type>],
    error: &parquet::errors::ParquetError,
) -> Error {
    let at = |column: &Arc<Type>| {
        let alone = project(schema, std::slice::from_ref(column)).ok()?;
        match group.get_row_iter(Some(alone)) {
            Ok(mut rows) => rows.position(|row| row.is_err()).map(|row| (column.name().to_owned(), row + 1)),
            Err(_) => Some((column.name().to_owned(), 1)),
        }
    };
    let place = match columns.iter().find_map(at) {
        Some((column, row)) => format!("row {row} of row group {index}, column `{column}`"),
        None => format!("row group {index}"),
    };
    Error::new(format!("{place} cannot be read: {error}"))
        .help("write the file again, uncompressed or with snappy, gzip, zstd or lz4")
}

fn object(row: Row) -> Result<Map<String, Value>> {
    let mut object = Map::new();
    for (name, field) in row.into_columns() {
        let value = value(&name, field)?;
        // a Parquet row has every column, also those of other layouts
        if !(value.is_null() && layouts::is_content(&name)) {
            object.insert(name, value);
        }
    }
    Ok(object)
}

fn value(column: &str, field: Field) -> Result<Value> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float(value) => float(value.into()),
        Field::Double(value) => float(value),
        Field::Str(value) => text(&value),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(value) => text(value),
            Err(_) => return Err(Error::new(format!("column `{column}` is not UTF-8"))),
        },
        Field::Group(row) => Value::Object(present(column, row.into_columns())?),
        Field::ListInternal(list) => {
            list.elements().iter().map(|field| value(column, field.clone())).collect::<Result<_>>()?
        }
        Field::MapInternal(map) => {
            let named = |(key, field): &(Field, Field)| match key {
                Field::Str(name) => Ok((name.clone(), field.clone())),
                _ => Err(Error::new(format!("the keys of column `{column}` are no text"))),
            };
            Value::Object(present(column, map.entries().iter().map(named).collect::<Result<_>>()?)?)
        }
        other => {
            return Err(Error::new(format!("column `{column}` holds `{other}`, which rows do not have")));
        }
    })
}

/// The fields of a struct but those that are null: it has them in every row.
fn present(column: &str, fields: Vec<(String, Field)>) -> Result<Map<String, Value>> {
    let fields = fields.into_iter().filter(|(_, field)| *field != Field::Null);
    fields.map(|(name, field)| Ok((name, value(column, field)?))).collect()
}

/// JSON has no NaN: as text it is told as it is.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}
