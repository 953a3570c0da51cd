//! The plan for a tired human, 80 columns wide.

use super::Plan;

const WIDTH: usize = 80;

/// Breaks a text into lines: the first with `first` in front, the others indented as far.
pub(crate) fn wrap(out: &mut String, first: &str, text: &str) {
    let indent = " ".repeat(first.chars().count());
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line.clone_from(&indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

impl Plan {
    /// What is erased, what is not touched, what changes, what is lost, and the steps.
    pub fn render(&self) -> String {
        let mut out = String::new();
        out.push_str("WILL BE ERASED\n");
        for disk in &self.disks {
            let id = &disk.identity;
            let model = id.model.as_deref().unwrap_or("unknown model");
            let serial = id.serial.as_deref().unwrap_or("none");
            wrap(
                &mut out,
                &format!("  {}  ", disk.device.display()),
                &format!("{model}, serial {serial}, {}", id.size),
            );
            let contents = if disk.erased.is_empty() {
                "nothing known".to_owned()
            } else {
                disk.erased.join("; ")
            };
            wrap(&mut out, "      on it now: ", &contents);
            wrap(
                &mut out,
                "      takes the place of: ",
                &format!("{} ({})", disk.saved, disk.why),
            );
        }
        out.push_str("\nWILL NOT BE TOUCHED\n");
        if self.fence.is_empty() {
            out.push_str("  (no other disk)\n");
        }
        for disk in &self.fence {
            let model = disk.model.as_deref().unwrap_or("unknown model");
            let serial = disk.serial.as_deref().unwrap_or("none");
            let bundle = if disk.bundle_medium {
                ", holds the backup"
            } else {
                ""
            };
            let contents = if disk.contents.is_empty() {
                String::new()
            } else {
                format!(": {}", disk.contents.join("; "))
            };
            let text = format!("{model}, serial {serial}, {}{bundle}{contents}", disk.size);
            wrap(&mut out, &format!("  {}  ", disk.device.display()), &text);
        }
        if !self.sizes.is_empty() {
            out.push_str("\nCHANGES SIZE\n");
            for change in &self.sizes {
                let (saved, now) = (change.saved.to_string(), change.now.to_string());
                // A small difference would read as none.
                let text = if saved == now {
                    format!(
                        "{}: {} -> {} bytes",
                        change.what, change.saved.0, change.now.0
                    )
                } else {
                    format!("{}: {saved} -> {now}", change.what)
                };
                wrap(&mut out, "  ", &text);
            }
        }
        if !self.notes.is_empty() {
            out.push_str("\nPLEASE NOTE\n");
            for note in &self.notes {
                wrap(&mut out, "  - ", note);
            }
        }
        out.push_str("\nSTEPS\n");
        for (index, step) in self.steps.iter().enumerate() {
            wrap(
                &mut out,
                &format!("  {:>2}. ", index + 1),
                &step.to_string(),
            );
        }
        out.push('\n');
        wrap(&mut out, "Tools needed: ", &self.tools.join(" "));
        out
    }
}
