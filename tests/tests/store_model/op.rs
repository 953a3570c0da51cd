//! What may happen to a host and its two targets.

use proptest::collection::vec;
use proptest::prelude::*;

use super::change::{self, Change};

/// How a backup ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    Commit,
    /// It is told to stop after so many KiB.
    Cancelled(u16),
    /// It is given up after all files were read.
    Abandoned,
    /// The power fails before the document has its name, and the index, when so said.
    Cut {
        index: bool,
    },
}

/// Which file of a store is hit.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    Pack,
    Index,
    Document,
    Parity,
}

#[derive(Debug, Clone, Copy)]
pub enum How {
    /// Bits change at this place.
    Flip(u32, u8),
    /// So many parts of 65536 of it are left.
    Truncate(u16),
    Remove,
}

#[derive(Debug, Clone, Copy)]
pub struct Hit {
    pub which: Which,
    pub number: u16,
    pub how: How,
}

/// What is done while a store is damaged.
#[derive(Debug, Clone)]
pub enum Meanwhile {
    Nothing,
    Backup(Backup),
    Prune(Prune),
}

#[derive(Debug, Clone)]
pub struct Backup {
    /// Bits: the targets.
    pub to: u8,
    pub host: u8,
    pub reread: bool,
    /// A host, or one of two directories.
    pub kind: u8,
    pub pack_size: u64,
    pub end: End,
}

#[derive(Debug, Clone)]
pub struct Prune {
    pub target: u8,
    pub keep: [u32; 6],
    pub whose: u8,
    /// The power fails before so many steps.
    pub cut: Option<u8>,
}

#[derive(Debug, Clone)]
pub enum Op {
    Change(Vec<Change>),
    Backup(Backup),
    /// All files become old enough to be relied upon.
    Wait,
    /// All restore points become so many hours older.
    Age(u16),
    Prune(Prune),
    Damage {
        target: u8,
        hits: Vec<Hit>,
        report: bool,
        meanwhile: Meanwhile,
        cut: Option<u8>,
    },
    /// No index is left, or not even its directory.
    LoseIndexes {
        target: u8,
        directory: bool,
    },
    /// A writer that was killed left something.
    Leftover {
        target: u8,
        number: u8,
    },
    Verify {
        target: u8,
    },
    Parity {
        target: u8,
        percent: u8,
    },
    Look {
        target: u8,
        a: u16,
        b: u16,
        path: u16,
        pattern: u8,
    },
}

fn backup() -> impl Strategy<Value = Backup> {
    let end = prop_oneof![
        8 => Just(End::Commit),
        1 => (0u16..9000).prop_map(End::Cancelled),
        1 => Just(End::Abandoned),
        1 => any::<bool>().prop_map(|index| End::Cut { index }),
    ];
    let to = prop_oneof![3 => Just(3u8), 1 => Just(1), 1 => Just(2)];
    let host = prop_oneof![5 => Just(0u8), 1 => Just(1), 1 => Just(2)];
    let kind = prop_oneof![5 => Just(0u8), 1 => Just(1), 1 => Just(2)];
    let pack_size = prop_oneof![Just(1u64), Just(100_000), Just(1 << 20), Just(128 << 20)];
    (to, host, any::<bool>(), kind, pack_size, end).prop_map(
        |(to, host, reread, kind, pack_size, end)| Backup {
            to,
            host,
            reread,
            kind,
            pack_size,
            end,
        },
    )
}

fn prune() -> impl Strategy<Value = Prune> {
    let number = prop_oneof![4 => Just(0u32), 1 => 1u32..4];
    let keep = proptest::array::uniform6(number);
    let cut = proptest::option::weighted(0.25, 0u8..12);
    (0u8..2, keep, 0u8..5, cut).prop_map(|(target, keep, whose, cut)| Prune {
        target,
        keep,
        whose,
        cut,
    })
}

fn hit() -> impl Strategy<Value = Hit> {
    let which = prop_oneof![
        4 => Just(Which::Pack),
        2 => Just(Which::Index),
        2 => Just(Which::Document),
        1 => Just(Which::Parity),
    ];
    let how = prop_oneof![
        3 => (any::<u32>(), 1u8..).prop_map(|(at, bits)| How::Flip(at, bits)),
        1 => any::<u16>().prop_map(How::Truncate),
        1 => Just(How::Remove),
    ];
    (which, any::<u16>(), how).prop_map(|(which, number, how)| Hit { which, number, how })
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    prop_oneof![
        3 => Just(Meanwhile::Nothing),
        1 => backup().prop_map(Meanwhile::Backup),
        2 => prune().prop_map(Meanwhile::Prune),
    ]
}

pub fn strategy() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => vec(change::strategy(), 1..8).prop_map(Op::Change),
        10 => backup().prop_map(Op::Backup),
        1 => Just(Op::Wait),
        2 => (0u16..1500).prop_map(Op::Age),
        3 => prune().prop_map(Op::Prune),
        4 => (0u8..2, vec(hit(), 1..4), any::<bool>(), meanwhile(), proptest::option::weighted(0.3, 0u8..6))
            .prop_map(|(target, hits, report, meanwhile, cut)| Op::Damage { target, hits, report, meanwhile, cut }),
        1 => (0u8..2, any::<bool>()).prop_map(|(target, directory)| Op::LoseIndexes { target, directory }),
        1 => (0u8..2, any::<u8>()).prop_map(|(target, number)| Op::Leftover { target, number }),
        1 => (0u8..2).prop_map(|target| Op::Verify { target }),
        2 => (0u8..2, prop_oneof![Just(0u8), Just(5u8), Just(5u8)]).prop_map(|(target, percent)| Op::Parity { target, percent }),
        3 => (0u8..2, any::<u16>(), any::<u16>(), any::<u16>(), any::<u8>())
            .prop_map(|(target, a, b, path, pattern)| Op::Look { target, a, b, path, pattern }),
    ]
}

/// A whole case: which targets are encrypted (bits), and what happens.
pub fn case() -> impl Strategy<Value = (u8, Vec<Op>)> {
    // Encryption is slow without optimisation.
    let encrypted = prop_oneof![6 => Just(0u8), 1 => Just(1), 1 => Just(2), 1 => Just(3)];
    (encrypted, vec(strategy(), 4..22))
}
