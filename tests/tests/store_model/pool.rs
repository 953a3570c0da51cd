//! Trees to begin with that are some seconds old: of younger files, nothing is relied upon.

use std::collections::VecDeque;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::change;
use crate::store_support::scratch;

/// A little more than what a backup distrusts.
const AGE: Duration = Duration::from_millis(2100);

pub struct Pool {
    size: usize,
    trees: Mutex<VecDeque<(Instant, tempfile::TempDir)>>,
}

impl Pool {
    pub fn new(size: usize) -> Pool {
        Pool {
            size,
            trees: Mutex::default(),
        }
    }

    /// A directory with a `tree`.
    pub fn take(&self) -> Result<tempfile::TempDir> {
        let (made, dir) = {
            let mut trees = self.trees.lock().unwrap();
            while trees.len() < self.size {
                let dir = scratch();
                fs::create_dir(dir.path().join("tree"))?;
                change::make_first(&dir.path().join("tree"))?;
                trees.push_back((Instant::now(), dir));
            }
            trees.pop_front().unwrap()
        };
        std::thread::sleep(AGE.saturating_sub(made.elapsed()));
        Ok(dir)
    }
}
