//! A manual page being written: what clap_mangen does not do.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// The manual that the pages belong to.
pub const MANUAL: &str = "Lifeboat";

/// The date in the footer: that of the sources (SOURCE_DATE_EPOCH, which package builds set), else today's.
pub fn date() -> String {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    let seconds = given
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(crate::values::now);
    crate::values::rfc3339(seconds).chars().take(10).collect()
}

/// `lifeboat 0.1.0`
pub fn source() -> String {
    format!("lifeboat {}", env!("CARGO_PKG_VERSION"))
}

/// Text with `commands` between backticks in bold.
pub fn marked(text: &str) -> Vec<Inline> {
    let mut out = Vec::new();
    for (i, part) in text.split('`').enumerate() {
        if !part.is_empty() {
            out.push(if i % 2 == 1 { bold(part) } else { roman(part) });
        }
    }
    out
}

/// A heading. Under it, the first paragraph needs no beginning.
pub fn heading(roff: &mut Roff, title: &str) {
    roff.control("SH", [title]);
}

/// A section of paragraphs.
pub fn paragraphs<'a>(roff: &mut Roff, title: &str, texts: impl IntoIterator<Item = &'a str>) {
    heading(roff, title);
    for (i, text) in texts.into_iter().enumerate() {
        if i > 0 {
            roff.control("PP", []);
        }
        roff.text(marked(text));
    }
}

/// A term and what it means.
pub fn item(roff: &mut Roff, term: Inline, text: &str) {
    roff.control("TP", []);
    roff.text([term]);
    roff.text(marked(text));
}

/// A command or a piece of a file, as it is typed.
pub fn verbatim(roff: &mut Roff, lines: &str) {
    roff.control("RS", ["4"]);
    roff.control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.control("RE", []);
}

/// A section of files or variables.
pub fn items(roff: &mut Roff, title: &str, list: &[(&str, &str)]) {
    heading(roff, title);
    for (term, text) in list {
        item(roff, italic(*term), text);
    }
}

/// `lifeboat(8), lifeboat.toml(5)`
pub fn see_also(roff: &mut Roff, pages: &[(String, u8)]) {
    heading(roff, "SEE ALSO");
    let last = pages.len().saturating_sub(1);
    for (i, (name, section)) in pages.iter().enumerate() {
        let comma = if i == last { "" } else { "," };
        roff.text([bold(name.as_str()), roman(format!("({section}){comma}"))]);
    }
}

/// One document out of pieces that each begin with what roff's writer puts at the head of a document.
pub fn join(pieces: &[String]) -> String {
    let head = Roff::new().render();
    let mut out = head.clone();
    for piece in pieces {
        out.push_str(piece.strip_prefix(&head).unwrap_or(piece));
    }
    // clap's texts come as plain text: what stands between backticks becomes bold here.
    out.lines().fold(String::new(), |all, line| {
        let line = if line.starts_with('.') {
            line.to_owned()
        } else {
            backticks(line)
        };
        all + &line + "\n"
    })
}

fn backticks(line: &str) -> String {
    let parts: Vec<&str> = line.split('`').collect();
    if parts.len() % 2 == 0 {
        // One of them has no partner: it means itself.
        return line.to_owned();
    }
    let mut out = String::new();
    for (i, part) in parts.iter().enumerate() {
        match i % 2 {
            1 => out.push_str(&format!("\\fB{part}\\fR")),
            _ => out.push_str(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_between_backticks_is_bold() {
        assert_eq!(
            backticks("take back what `arm` did"),
            "take back what \\fBarm\\fR did"
        );
        assert_eq!(backticks("a ` alone"), "a ` alone");
        assert_eq!(marked("`a` b"), [bold("a"), roman(" b")]);
    }

    #[test]
    fn pieces_become_one_document() {
        let piece = |text: &str| {
            let mut roff = Roff::new();
            paragraphs(&mut roff, "X", [text]);
            roff.render()
        };
        let page = join(&[piece("it's"), piece("'so'")]);
        assert_eq!(page.matches(".ds Aq").count(), 2, "{page}");
        assert!(
            page.contains("it\\*(Aqs") && page.ends_with("so\\*(Aq\n"),
            "{page}"
        );
    }
}
