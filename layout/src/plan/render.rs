//! The plan for a tired human, 80 columns wide.

use super::{InPlace, Mode, Plan};

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

/// `System only`.
fn capital(mode: Mode) -> String {
    let text = mode.to_string();
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

impl Plan {
    /// What is erased, what is not touched, what changes, what is lost, and the steps.
    pub fn render(&self) -> String {
        let mut out = String::new();
        if let Some(in_place) = &self.in_place {
            self.render_in_place(&mut out, in_place);
            self.render_rest(&mut out);
            return out;
        }
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
            if let Some(joins) = &disk.joins {
                let text = format!(
                    "volume group {} of {}, beside the disk in its place ({})",
                    joins.group, joins.saved, disk.why
                );
                wrap(&mut out, "      takes a part of: ", &text);
                continue;
            }
            wrap(
                &mut out,
                "      takes the place of: ",
                &format!("{} ({})", disk.saved, disk.why),
            );
            for merged in &self.merged {
                if merged.onto.as_ref() == Some(&disk.saved) {
                    let text = format!("{} ({}; chosen)", merged.saved, merged.what);
                    wrap(&mut out, "      and of: ", &text);
                }
            }
        }
        let missing = self.merged.iter().filter(|m| m.onto.is_none());
        let missing: Vec<_> = missing.collect();
        if !missing.is_empty() {
            out.push_str("\nDONE WITHOUT\n");
            for disk in missing {
                let text = format!("{} ({}; chosen)", disk.saved, disk.what);
                wrap(&mut out, "  ", &text);
            }
        }
        out.push_str("\nWILL NOT BE TOUCHED\n");
        self.render_fence(&mut out);
        self.render_rest(&mut out);
        out
    }

    /// What is made anew, and what stays, on the disks that are written to.
    fn render_in_place(&self, out: &mut String, in_place: &InPlace) {
        wrap(
            out,
            "",
            &format!("{}: {}.", capital(in_place.mode), in_place.mode.about()),
        );
        out.push_str("\nWILL BE MADE ANEW\n");
        for disk in &self.disks {
            let id = &disk.identity;
            let model = id.model.as_deref().unwrap_or("unknown model");
            let serial = id.serial.as_deref().unwrap_or("none");
            wrap(
                out,
                &format!("  on {}  ", disk.device.display()),
                &format!("{model}, serial {serial}, {} ({})", id.size, disk.why),
            );
            for remade in in_place.remade.iter().filter(|r| r.disk == disk.device) {
                wrap(out, "      ", &remade.what);
            }
        }
        out.push_str("\nWILL NOT BE TOUCHED\n");
        for kept in &in_place.kept {
            wrap(
                out,
                &format!("  on {}  ", kept.disk.display()),
                if kept.what.is_empty() {
                    "(nothing else is there)"
                } else {
                    "all the rest:"
                },
            );
            for what in &kept.what {
                wrap(out, "      ", what);
            }
        }
        if !self.fence.is_empty() {
            self.render_fence(out);
        }
    }

    fn render_fence(&self, out: &mut String) {
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
            wrap(out, &format!("  {}  ", disk.device.display()), &text);
        }
    }

    fn render_rest(&self, out: &mut String) {
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
                wrap(out, "  ", &text);
            }
        }
        if !self.notes.is_empty() {
            out.push_str("\nPLEASE NOTE\n");
            for note in &self.notes {
                wrap(out, "  - ", note);
            }
        }
        out.push_str("\nSTEPS\n");
        for (index, step) in self.steps.iter().enumerate() {
            wrap(out, &format!("  {:>2}. ", index + 1), &step.to_string());
        }
        out.push('\n');
        wrap(out, "Tools needed: ", &self.tools.join(" "));
    }
}
