//! How the library reports progress; the programs draw the bars.

/// Receives progress. Methods are called from several threads at once and must not block for long.
pub trait Events: Send + Sync {
    /// A phase begins; `total` is the number of bytes it will report, if known.
    fn phase(&self, name: &str, total: Option<u64>) {
        let _ = (name, total);
    }
    /// `n` more bytes of the current phase are done.
    fn bytes(&self, n: u64) {
        let _ = n;
    }
    /// The file (path inside its tree, raw bytes) that is worked on now; not every file is reported.
    fn item(&self, path: &[u8]) {
        let _ = path;
    }
    /// Something that the user should know but that does not end the work.
    fn warn(&self, text: &str) {
        let _ = text;
    }
    /// Whether the user wants the work to stop. Asked often (between files, chunks and packs), so it must be cheap.
    /// When true, the operation ends soon with [`Error::Cancelled`](crate::Error::Cancelled): no snapshot is made,
    /// what was there before is untouched.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Ignores everything.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Events for Silent {}
