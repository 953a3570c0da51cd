//! Entries of the log, and the proof that they are as they were written: each holds the hash of the line before it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::BufRead;
use std::str::FromStr;

use bundle::Id;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Who;

/// An entry: a line of the log, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counted from 1 without a gap.
    pub number: u64,
    /// When it was written.
    pub time: Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub event: Event,
    /// Who started the command.
    pub who: Who,
    /// What the command was.
    pub command: String,
    /// Which targets, restore points, guests; never a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub about: BTreeMap<String, Vec<String>>,
    /// What a power cut left before this entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn: Option<Torn>,
    /// The SHA-256 of the entry before this one, without its line end; nothing for the first.
    pub previous: Option<Id>,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A command begins.
    Start,
    /// It has ended.
    End {
        /// The number of the entry that says that it begins.
        of: u64,
        /// Its exit status.
        exit: u8,
        /// Why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// Lines that were not written to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Torn {
    /// Their length with line ends.
    pub bytes: u64,
    /// Their SHA-256.
    pub hash: Id,
}

impl Torn {
    /// Of these bytes, if there are any.
    pub fn of(bytes: &[u8]) -> Option<Torn> {
        (!bytes.is_empty()).then(|| Torn {
            bytes: bytes.len() as u64,
            hash: Id::of(bytes),
        })
    }
}

/// An entry by number and hash: what stands for all of the log up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`Entry::number`]
    pub number: u64,
    /// The SHA-256 of its line, without the line end.
    pub hash: Id,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let head = text.split_once(':').and_then(|(number, hash)| {
            Some(Head {
                number: number.parse().ok()?,
                hash: hash.parse().ok()?,
            })
        });
        head.ok_or_else(|| format!("'{text}' is not an entry; write NUMBER:HASH"))
    }
}

/// A line longer than this was not written by this program.
pub const LONGEST: usize = 64 * 1024;

/// How many findings are told; the first is the one that counts.
const MOST: usize = 20;

/// What was found in the log.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    /// Whether nothing was changed, removed or put in.
    pub ok: bool,
    /// How many entries there are.
    pub entries: u64,
    /// The last one: to be kept somewhere else.
    pub head: Option<Head>,
    /// Lines that a power cut left unfinished.
    pub torn: Vec<u64>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What else to know.
    pub notes: Vec<String>,
}

/// Something that is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub what: String,
}

/// The entries of a log that can be read, in order.
pub fn entries(log: &[u8]) -> Vec<Entry> {
    let lines = log.split(|b| *b == b'\n');
    lines
        .filter_map(|l| serde_json::from_slice(l).ok())
        .collect()
}

/// Looks at every line. `known` are entries that were kept elsewhere, with the words for where.
pub fn verify(mut log: impl BufRead, known: &[(Head, &str)]) -> std::io::Result<Verdict> {
    let mut walk = Walk::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if log.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        walk.line(&line, known);
    }
    walk.end(known);
    let mut verdict = walk.verdict;
    verdict.ok = verdict.findings.is_empty();
    Ok(verdict)
}

#[derive(Default)]
struct Walk {
    verdict: Verdict,
    at: u64,
    /// The last entry, and its line.
    last: Option<(Head, u64)>,
    torn: Vec<u8>,
    torn_lines: Vec<u64>,
    met: Vec<Head>,
}

impl Walk {
    fn finding(&mut self, line: u64, what: impl Into<String>) {
        if self.verdict.findings.len() < MOST {
            let what = what.into();
            self.verdict.findings.push(Finding { line, what });
        }
    }

    fn line(&mut self, line: &[u8], known: &[(Head, &str)]) {
        self.at += 1;
        let at = self.at;
        let whole = line.strip_suffix(b"\n");
        let entry = whole.and_then(|l| Some((serde_json::from_slice::<Entry>(l).ok()?, l)));
        let Some((entry, text)) = entry else {
            self.torn.extend_from_slice(line);
            self.torn_lines.push(at);
            return;
        };
        self.verdict.entries += 1;
        let torn = std::mem::take(&mut self.torn);
        let torn_lines = std::mem::take(&mut self.torn_lines);
        if Torn::of(&torn) == entry.torn {
            self.verdict.torn.extend(torn_lines);
        } else {
            let first = torn_lines.first().copied().unwrap_or(at);
            self.finding(first, "is not an entry, and not what a power cut had left there: it was changed or put in");
        }
        match self.last {
            None if entry.number != 1 || entry.previous.is_some() => {
                self.finding(
                    at,
                    format!("is entry {}: what was before it is missing", entry.number),
                );
            }
            None => {}
            Some((last, _)) if entry.number != last.number + 1 => {
                let what = format!(
                    "entry {} follows entry {}: entries were removed, put in or put into another order",
                    entry.number, last.number
                );
                self.finding(at, what);
            }
            Some((last, line)) if entry.previous != Some(last.hash) => {
                self.finding(
                    line,
                    format!("entry {} was changed after it was written", last.number),
                );
            }
            Some(_) => {}
        }
        let head = Head {
            number: entry.number,
            hash: Id::of(text),
        };
        if known.iter().any(|(known, _)| known.number == head.number) {
            self.met.push(head);
        }
        self.last = Some((head, at));
    }

    fn end(&mut self, known: &[(Head, &str)]) {
        let torn = std::mem::take(&mut self.torn_lines);
        if !torn.is_empty() {
            let note = "the last line is unfinished: a power cut, or an entry that is being written; the next entry will name it";
            self.verdict.notes.push(note.to_owned());
            self.verdict.torn.extend(torn);
        }
        let (number, line) = self.last.map_or((0, 0), |(head, line)| (head.number, line));
        for (known, place) in known {
            if self.met.contains(known) {
                continue;
            }
            let what = match known.number > number {
                true => format!(
                    "the log ends with entry {number}, but {place} there was an entry {}: its end was cut off",
                    known.number
                ),
                false => format!(
                    "entry {} is not what it was {place}: it, or something before it, was changed",
                    known.number
                ),
            };
            // One that was found changed already is not told twice.
            if known.number > number || self.verdict.findings.is_empty() {
                self.finding(line.max(1), what);
            }
        }
        self.verdict.head = self.last.map(|(head, _)| head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(count: u64) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for number in 1..=count {
            let entry = Entry {
                number,
                time: Timestamp::UNIX_EPOCH,
                event: match number % 2 {
                    1 => Event::Start,
                    _ => Event::End {
                        of: number - 1,
                        exit: 0,
                        error: None,
                    },
                },
                who: Who::default(),
                command: "backup".into(),
                about: BTreeMap::new(),
                torn: None,
                previous: lines.last().map(|l| Id::of(l.as_bytes())),
            };
            lines.push(serde_json::to_string(&entry).unwrap());
        }
        lines
    }

    fn check(lines: &[String], known: &[(Head, &str)]) -> Verdict {
        let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
        verify(text.as_bytes(), known).unwrap()
    }

    fn first(lines: &[String]) -> u64 {
        let verdict = check(lines, &[]);
        assert!(!verdict.ok);
        verdict.findings[0].line
    }

    fn head(lines: &[String], number: usize) -> Head {
        Head {
            number: number as u64,
            hash: Id::of(lines[number - 1].as_bytes()),
        }
    }

    #[test]
    fn a_log_as_it_was_written_is_good() {
        let lines = log(6);
        let verdict = check(&lines, &[(head(&lines, 6), "x"), (head(&lines, 3), "y")]);
        assert!(verdict.ok, "{verdict:?}");
        assert_eq!((verdict.entries, verdict.head), (6, Some(head(&lines, 6))));
        assert!(check(&[], &[]).ok);
    }

    #[test]
    fn what_was_changed_removed_or_moved_is_found_with_its_line() {
        let mut changed = log(6);
        changed[2] = changed[2].replace("backup", "verify");
        assert_eq!(first(&changed), 3);
        let mut removed = log(6);
        removed.remove(3);
        assert_eq!(first(&removed), 4);
        let mut moved = log(6);
        moved.swap(1, 2);
        assert_eq!(first(&moved), 2);
        assert_eq!(first(&log(6)[1..]), 1);
        let mut put_in = log(6);
        put_in.insert(2, "nonsense".into());
        assert_eq!(first(&put_in), 3);
        // A line of the right number that the rest does not know of.
        let mut other = log(6);
        other[3] = log(4)[3].replace("\"exit\":0", "\"exit\":1");
        assert_eq!(first(&other), 4);
    }

    #[test]
    fn an_end_that_was_cut_off_is_found_by_what_was_kept_elsewhere() {
        let lines = log(6);
        let verdict = check(&lines[..4], &[(head(&lines, 6), "in the head file")]);
        assert!(verdict.findings[0].what.contains("cut off"), "{verdict:?}");
        let mut last = lines.clone();
        last[5] = last[5].replace("backup", "verify");
        assert!(check(&last, &[]).ok);
        let verdict = check(&last, &[(head(&lines, 6), "in the head file")]);
        assert!(!verdict.ok && verdict.findings[0].line == 6, "{verdict:?}");
    }

    #[test]
    fn heads_read_as_written() {
        let head = head(&log(1), 1);
        assert_eq!(head.to_string().parse(), Ok(head));
        assert!("1:xyz".parse::<Head>().is_err() && "1".parse::<Head>().is_err());
    }
}
