//! Reads a report's page, and holds every figure in it against the data.

use serde_json::Value;

/// A page in pieces.
pub struct Page {
    /// The data in it.
    pub data: Value,
    pieces: Vec<Piece>,
}

enum Piece {
    /// Name and attributes.
    Begin(String, Vec<(String, String)>),
    End(String),
    Text(String),
}

const VOID: [&str; 2] = ["meta", "link"];

impl Page {
    pub fn new(html: &str) -> Page {
        let (page, rest) = html
            .split_once(r#"<script type="application/json" id="report-data">"#)
            .unwrap();
        let (data, rest) = rest.split_once("</script>").unwrap();
        Page {
            data: serde_json::from_str(data).unwrap(),
            pieces: pieces(&(page.to_owned() + rest)),
        }
    }

    pub fn without_data(html: &str) -> Page {
        Page {
            data: Value::Null,
            pieces: pieces(html),
        }
    }

    /// Every address leads to a value that is the one in the attribute, and what is written is that value, too.
    pub fn check_figures(&self, data: &Value) -> usize {
        let mut count = 0;
        for (nth, piece) in self.pieces.iter().enumerate() {
            let Piece::Begin(name, attributes) = piece else {
                continue;
            };
            let attribute = |key: &str| {
                attributes
                    .iter()
                    .find(|(k, _)| k == key)
                    .map(|(_, v)| v.as_str())
            };
            let Some(pointer) = attribute("data-json") else {
                continue;
            };
            let at = data
                .pointer(pointer)
                .unwrap_or_else(|| panic!("nothing is at {pointer}"));
            let value = ["value", "datetime", "data-value"]
                .iter()
                .find_map(|key| attribute(key));
            let value = value.unwrap_or_else(|| panic!("<{name}> has no value: {pointer}"));
            let raw = match at {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            assert_eq!(value, raw, "{pointer}");
            if let (Some(number), Some(Piece::Text(text))) = (at.as_f64(), self.pieces.get(nth + 1))
            {
                check_number(text, number, pointer);
            }
            count += 1;
        }
        count
    }

    /// No figure without an address, but for scales, legends, tips and counts of what is not shown.
    pub fn check_text_without_figures(&self) {
        const FREE: [&str; 8] = [
            "scale", "steps", "legend", "meta", "hash", "head", "evidence", "title",
        ];
        let mut open: Vec<(String, bool)> = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Begin(name, attributes) => {
                    let has = |key: &str, of: &[&str]| {
                        let mut all = attributes.iter().filter(|(k, _)| k == key);
                        all.any(|(_, v)| v.split(' ').any(|word| of.contains(&word)))
                    };
                    let addressed = attributes.iter().any(|(k, _)| k == "data-json");
                    let free = addressed
                        || FREE.contains(&name.as_str())
                        || has("class", &FREE)
                        || has("id", &FREE);
                    if !VOID.contains(&name.as_str()) {
                        open.push((name.clone(), free));
                    }
                }
                Piece::End(name) => {
                    let (begun, _) = open.pop().unwrap();
                    assert_eq!(&begun, name, "what begins ends");
                }
                Piece::Text(text) => {
                    let free = open.iter().any(|(_, free)| *free);
                    let digit = text.chars().any(|c| c.is_ascii_digit());
                    assert!(
                        free || !digit || text == "3-2-1-1-0",
                        "a figure without an address: {text}"
                    );
                }
            }
        }
        assert!(open.is_empty());
    }
}

fn pieces(html: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let html = html.strip_prefix("<!DOCTYPE html>").unwrap();
    let (before, rest) = html.split_once("<style>").unwrap();
    let (_, after) = rest.split_once("</style>").unwrap();
    let html = before.to_owned() + after;
    let mut rest = html.as_str();
    while let Some(begin) = rest.find('<') {
        if begin > 0 {
            pieces.push(Piece::Text(plain(&rest[..begin])));
        }
        let end = begin + rest[begin..].find('>').unwrap();
        let tag = &rest[begin + 1..end];
        rest = &rest[end + 1..];
        match tag.strip_prefix('/') {
            Some(name) => pieces.push(Piece::End(name.to_owned())),
            None => pieces.push(begun(tag)),
        }
    }
    pieces
}

fn begun(tag: &str) -> Piece {
    let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
    let mut attributes = Vec::new();
    while !rest.trim().is_empty() {
        rest = rest.trim_start();
        let (key, after) = match rest.split_once('=') {
            Some((key, after)) if !key.contains(' ') => (key, after),
            _ => {
                let (key, after) = rest.split_once(' ').unwrap_or((rest, ""));
                attributes.push((key.to_owned(), String::new()));
                rest = after;
                continue;
            }
        };
        let (value, after) = after.strip_prefix('"').unwrap().split_once('"').unwrap();
        attributes.push((key.to_owned(), plain(value)));
        rest = after;
    }
    Piece::Begin(name.to_owned(), attributes)
}

fn plain(text: &str) -> String {
    let quoted = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&amp;", "&"),
    ];
    quoted
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// `1.5 GiB`, `2 d 3 h`, `12,345` and `4.2 %` are the number, as exactly as they are written.
fn check_number(text: &str, number: f64, pointer: &str) {
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut sum = 0.0;
    let mut smallest: f64 = 1.0;
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let Ok(value) = word.replace(',', "").parse::<f64>() else {
            return;
        };
        let unit = match words.next().unwrap_or("") {
            "" | "B" | "s" | "%" => 1.0,
            "ms" => 1e-3,
            "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "KiB" => 1024.0,
            "MiB" => 1024f64.powi(2),
            "GiB" => 1024f64.powi(3),
            "TiB" => 1024f64.powi(4),
            _ => return,
        };
        sum += value * unit;
        smallest = if word.contains('.') {
            unit / 10.0
        } else {
            unit
        };
    }
    assert!(
        (sum - number).abs() <= smallest,
        "'{text}' is written for {number} at {pointer}"
    );
}
