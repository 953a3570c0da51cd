//! Catalogues, and what is made of them.

use crate::list::EntryKind;
use crate::{Id, bytes, catalogue as catalogues};

pub(super) fn catalogue(data: &[u8]) {
    let texts = data.split(|b| *b == b'\n').filter(|text| !text.is_empty());
    let lines = catalogues::parse(&Id::of(b"x"), data).unwrap_or_default();
    for (line, text) in lines.into_iter().zip(texts) {
        // A line is of what it says: all of a segment that counts in part would bring removed files back.
        let json: serde_json::Value = serde_json::from_slice(text).unwrap();
        let part = json.get("part").is_some_and(|p| *p == true);
        assert_eq!((line.part, line.raw), (part, json["raw"].as_u64().unwrap()));
        for entry in &line.entries {
            assert!(bytes::is_inside(bytes::of(&entry.path)));
            if entry.kind == EntryKind::Hardlink {
                let target = entry.target.as_deref().map(bytes::of);
                assert!(target.is_some_and(bytes::is_inside));
            }
        }
        // A later backup writes unchanged lines again.
        let write = match line.part {
            true => catalogues::line_of_part,
            false => catalogues::line,
        };
        let again = write(line.segment, line.raw, &line.entries).unwrap();
        if let Some(first) = line.entries.first() {
            let found = catalogues::first_path(&again).unwrap();
            assert_eq!(found, bytes::of(&first.path));
        }
        let again = catalogues::parse(&Id::of(b"x"), &again).unwrap();
        assert_eq!(again[0].entries, line.entries);
        assert_eq!(
            (again[0].segment, again[0].raw, again[0].part),
            (line.segment, line.raw, line.part)
        );
    }
    for line in data.split(|b| *b == b'\n') {
        catalogues::first_path(line);
    }
}

/// Trees with their mount points between their catalogues, as `lifeboat mount` puts them together.
pub(super) fn browse(data: &[u8]) {
    let mut trees: Vec<(String, Vec<u8>)> = vec![("/".into(), Vec::new())];
    for line in data.split(|b| *b == b'\n') {
        match line.strip_prefix(b"@") {
            Some(at) if trees.len() < 5 => {
                trees.push((String::from_utf8_lossy(at).into_owned(), Vec::new()));
            }
            _ => {
                if let Some((_, catalogue)) = trees.last_mut() {
                    catalogue.extend_from_slice(line);
                    catalogue.push(b'\n');
                }
            }
        }
    }
    let parse = |(at, json): (String, Vec<u8>)| (at, catalogues::parse(&Id::of(b"x"), &json));
    crate::browse::check_index(trees.into_iter().map(parse).collect());
}
