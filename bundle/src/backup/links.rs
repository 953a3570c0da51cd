//! Inodes with several names: the content is kept under one of them, the others are links to it.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::walk::Stat;

/// What has become of an inode.
enum State {
    /// One of its names is being read, or will be.
    Pending,
    /// Its content is kept under this name.
    Kept(Arc<[u8]>),
    /// The name that was to be read has vanished, or is another file by now: the next one is read.
    Missed,
}

pub(super) struct Inode {
    state: Mutex<State>,
    settled: Condvar,
}

impl Inode {
    /// The name under which the content is kept; `None` when it is still to be read. Waits until that is known, see
    /// [`Role::resolve`].
    pub(super) fn kept(&self) -> Option<Arc<[u8]>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*state {
                State::Kept(path) => return Some(path.clone()),
                State::Missed => return None,
                State::Pending => {
                    state = self
                        .settled
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn settle(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.settled.notify_all();
    }
}

/// What a name is to its inode.
pub(super) enum Role {
    /// There is no other.
    Only,
    /// It is to be read.
    First(First),
    /// Another came before it.
    Later(Arc<Inode>),
}

impl Role {
    /// What is to be read, or the name under which the content is kept. Waits until that is known; the name that it
    /// waits for was handed to a reader before, so that readers cannot wait for each other in a circle.
    pub(super) fn resolve(self) -> Result<Option<First>, Arc<[u8]>> {
        let inode = match self {
            Role::Only => return Ok(None),
            Role::First(first) => return Ok(Some(first)),
            Role::Later(inode) => inode,
        };
        let mut state = inode.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*state {
                State::Pending => {
                    state = inode
                        .settled
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                State::Kept(path) => return Err(path.clone()),
                State::Missed => {
                    *state = State::Pending;
                    drop(state);
                    return Ok(Some(First(inode)));
                }
            }
        }
    }
}

/// The duty to read an inode. Dropped without [`First::kept`], it passes to the next name.
pub(super) struct First(Arc<Inode>);

impl First {
    pub(super) fn inode(&self) -> &Arc<Inode> {
        &self.0
    }

    pub(super) fn kept(&self, path: &[u8]) {
        self.0.settle(State::Kept(path.into()));
    }
}

impl Drop for First {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Pending) {
            *state = State::Missed;
            self.0.settled.notify_all();
        }
    }
}

/// The inodes with several names that a walk has met, by number and birth: a number is used again.
#[derive(Default)]
pub(super) struct Links(HashMap<(u64, (i64, u32)), Arc<Inode>>);

impl Links {
    pub(super) fn role(&mut self, stat: &Stat) -> Role {
        // A file that something is mounted on has the other file system's inode number.
        if stat.nlink < 2 || stat.is_dir() || stat.mount_root {
            return Role::Only;
        }
        let key = (stat.ino, stat.btime);
        if let Some(inode) = self.0.get(&key) {
            return Role::Later(inode.clone());
        }
        let inode = Arc::new(Inode {
            state: Mutex::new(State::Pending),
            settled: Condvar::new(),
        });
        self.0.insert(key, inode.clone());
        Role::First(First(inode))
    }
}
