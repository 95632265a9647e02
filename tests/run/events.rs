//! Event files, read by a reader of this test's own.

use std::fs;

use raco::run::{StoredRun, write_events};
use serde_json::Value;

use super::report::run_folder;

/// CRC-32C bit by bit, from its definition: polynomial 0x1EDC6F41, reflected.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

fn masked(data: &[u8]) -> u32 {
    let crc = crc32c(data);
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (head, tail) = bytes.split_at(count);
    *bytes = tail;
    head
}

fn u32_of(bytes: &mut &[u8]) -> u32 {
    u32::from_le_bytes(take(bytes, 4).try_into().unwrap())
}

/// The data of each record, whose CRCs must be right.
fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let length = take(&mut bytes, 8);
        assert_eq!(u32_of(&mut bytes), masked(length), "CRC of a length");
        let data = take(&mut bytes, u64::from_le_bytes(length.try_into().unwrap()) as usize);
        assert_eq!(u32_of(&mut bytes), masked(data), "CRC of the data");
        all.push(data.to_vec());
    }
    all
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut x, mut shift) = (0, 0);
    loop {
        let byte = take(bytes, 1)[0];
        x |= u64::from(byte & 0x7F) << shift;
        shift += 7;
        if byte < 0x80 {
            return x;
        }
    }
}

/// Fields of a message: number, and the bytes of its value (of a varint: as eight bytes).
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => varint(&mut bytes).to_le_bytes().to_vec(),
            1 => take(&mut bytes, 8).to_vec(),
            2 => {
                let length = varint(&mut bytes) as usize;
                take(&mut bytes, length).to_vec()
            }
            5 => take(&mut bytes, 4).to_vec(),
            wire => panic!("wire type {wire}"),
        };
        all.push((key >> 3, value));
    }
    all
}

fn field(all: &[(u64, Vec<u8>)], number: u64) -> Option<&[u8]> {
    all.iter().find(|(n, _)| *n == number).map(|(_, value)| &value[..])
}

#[test]
fn checksums_of_this_reader_are_the_known_ones() {
    // the check value of the CRC catalogue, and RFC 3720, B.4
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
}

#[test]
fn an_event_file_holds_every_number_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    run_folder(&dir, "cagrad_clip", 3, 200);
    let run = StoredRun::read("sweep/run", &dir);
    let path = write_events(&run, &folder.path().join("tb")).unwrap();
    assert_eq!(path, folder.path().join("tb/sweep/run/events.out.tfevents.1700000000.raco"));
    let events: Vec<_> = records(&fs::read(&path).unwrap()).iter().map(|data| fields(data)).collect();
    assert_eq!(field(&events[0], 3), Some(&b"brain.Event:2"[..]));
    assert_eq!(events.len(), 1 + 1 + 200 + 1, "version, before, rows, after");
    let time = |event: &[(u64, Vec<u8>)]| f64::from_le_bytes(field(event, 1).unwrap().try_into().unwrap());
    assert_eq!(time(&events[0]), 1.7e9);
    assert!((time(&events[201]) - 1.7e9 - 2.0).abs() < 1e-3, "200 steps of 10 ms");
    let scalars = |event: &[(u64, Vec<u8>)]| -> Vec<(String, f32)> {
        let summary = fields(field(event, 5).unwrap());
        let value = |(_, value): &(u64, Vec<u8>)| {
            let value = fields(value);
            let tag = String::from_utf8(field(&value, 1).unwrap().to_vec()).unwrap();
            (tag, f32::from_le_bytes(field(&value, 2).unwrap().try_into().unwrap()))
        };
        summary.iter().map(value).collect()
    };
    for (row, event) in run.rows.iter().zip(&events[2..202]) {
        let step = field(event, 2).unwrap();
        assert_eq!(Value::from(u64::from_le_bytes(step.try_into().unwrap())), row["step"]);
        let found = scalars(event);
        let of = |tag: &str| found.iter().find(|(name, _)| name == tag).map(|(_, x)| *x);
        assert_eq!(of("losses/quality"), row["losses"]["quality"].as_f64().map(|x| x as f32));
        assert_eq!(of("layers/layer 0/norms/brevity"), Some(2.0));
        assert_eq!(of("h/0/0"), Some(4.0));
        assert_eq!(of("margins/brevity"), None, "null has no number");
        assert_eq!(of("step"), None);
    }
    assert_eq!(scalars(&events[1]), [("evaluation/quality".to_owned(), 0.5)]);
    assert_eq!(scalars(&events[202]), [("evaluation/quality".to_owned(), 0.625)]);
    // written again, the file is replaced and not doubled
    let before = fs::read(&path).unwrap();
    assert_eq!(write_events(&run, &folder.path().join("tb")).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), before);
}
