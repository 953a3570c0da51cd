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
}

/// Ignores everything.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Events for Silent {}
