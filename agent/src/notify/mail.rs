//! Mail, through a program that takes it as sendmail(8) does: recipients are in the header, not in its arguments.

use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use layout::system::{Cmd, System};

use super::{Message, Settings};

/// Longest line that is sent as it is; RFC 5322, 2.1.1, allows 998.
const LINE: usize = 900;

/// Hands a message over; the mail system takes it from there.
pub fn send(sys: &dyn System, settings: &Settings, message: &Message) -> Result<(), String> {
    let program = &settings.sendmail;
    if !sys.exists(program) {
        return Err(format!(
            "{} is not there: install a mail system (postfix, or msmtp-mta), or set notify.mail-to to \"\"",
            program.display()
        ));
    }
    let command = command(program).input(compose(settings, message));
    sys.run(&command).map(drop).map_err(|e| e.to_string())
}

fn command(program: &Path) -> Cmd {
    Cmd::new(program.to_string_lossy())
        .args(["-t", "-oi"])
        .timeout(Duration::from_secs(60))
}

fn compose(settings: &Settings, message: &Message) -> Vec<u8> {
    let mut out = String::new();
    let mut header = |name: &str, value: &str| {
        let one_line = value.replace(['\r', '\n'], " ");
        out.push_str(&format!("{name}: {one_line}\n"));
    };
    if !settings.mail_from.is_empty() {
        header("From", &settings.mail_from);
    }
    header("To", &settings.mail_to);
    let date = message.time.to_zoned(TimeZone::system());
    header(
        "Date",
        &date.strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
    );
    header("MIME-Version", "1.0");
    header("Content-Type", "text/plain; charset=utf-8");
    // RFC 3834: nobody's vacation answers.
    header("Auto-Submitted", "auto-generated");
    header("X-Lifeboat-Event", message.event.word());
    let subject = encoded_words(&format!("[lifeboat] {}", message.title));
    out.push_str(&format!("Subject: {subject}\n"));
    let plain = message.text.is_ascii() && message.text.lines().all(|l| l.len() < LINE);
    let text = match plain {
        true => message.text.clone(),
        false => quoted_printable(&message.text),
    };
    let encoding = match plain {
        true => "7bit",
        false => "quoted-printable",
    };
    out.push_str(&format!("Content-Transfer-Encoding: {encoding}\n\n{text}"));
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out.into_bytes()
}

/// RFC 2047: what is not plain ASCII goes into words of at most 75 characters, and the header is folded between them.
fn encoded_words(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii() && !c.is_ascii_control());
    // What looks like an encoded word is not to be read as one.
    if plain && !text.contains("=?") && text.len() < LINE {
        return text.to_owned();
    }
    const START: &str = "=?utf-8?q?";
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        let mut bytes = [0; 4];
        let encoded: String = match c {
            ' ' => "_".into(),
            c if c.is_ascii_alphanumeric() || "-/".contains(c) => c.into(),
            c => c
                .encode_utf8(&mut bytes)
                .bytes()
                .map(|b| format!("={b:02X}"))
                .collect(),
        };
        if START.len() + word.len() + encoded.len() + 2 > 75 {
            words.push(std::mem::take(&mut word));
        }
        word.push_str(&encoded);
    }
    words.push(word);
    let words: Vec<String> = words.iter().map(|w| format!("{START}{w}?=")).collect();
    words.join("\n ")
}

/// RFC 2045, 6.7: lines of at most 76 characters.
fn quoted_printable(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut column = 0;
        let bytes = line.as_bytes();
        for (i, byte) in bytes.iter().enumerate() {
            let last = i + 1 == bytes.len();
            let encoded = match byte {
                b' ' if !last => " ".to_owned(),
                b'!'..=b'~' if *byte != b'=' => char::from(*byte).to_string(),
                byte => format!("={byte:02X}"),
            };
            if column + encoded.len() > 75 {
                out.push_str("=\n");
                column = 0;
            }
            column += encoded.len();
            out.push_str(&encoded);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Event;
    use super::*;
    use jiff::Timestamp;

    fn message(title: &str, text: &str) -> Message {
        Message::new(Event::Failure, "pve1", Timestamp::UNIX_EPOCH, title, text)
    }

    fn composed(message: &Message) -> String {
        String::from_utf8(compose(&Settings::default(), message)).unwrap()
    }

    #[test]
    fn a_mail() {
        let mail = composed(&message("backup failed: no target", "What to do\n.\n"));
        assert!(mail.starts_with("To: root\nDate: "), "{mail}");
        assert!(mail.contains("\nSubject: [lifeboat] pve1: backup failed: no target\n"));
        assert!(mail.contains("\nAuto-Submitted: auto-generated\n"));
        assert!(mail.ends_with("\nContent-Transfer-Encoding: 7bit\n\nWhat to do\n.\n"));
    }

    #[test]
    fn nothing_is_slipped_into_the_header() {
        let mut message = message("x", "text");
        message.title = "x\nBcc: someone@example.org\r\nX: y".into();
        let mail = composed(&message);
        let (header, body) = mail.split_once("\n\n").unwrap();
        assert!(
            !header
                .lines()
                .any(|l| l.starts_with("Bcc") || l.starts_with("X:")),
            "{header}"
        );
        assert_eq!(body, "text\n");
        // The address is none of the program's arguments.
        let argv = command(Path::new("/usr/sbin/sendmail")).argv;
        assert_eq!(argv, ["/usr/sbin/sendmail", "-t", "-oi"]);
    }

    #[test]
    fn other_letters_arrive() {
        let mail = composed(&message("Gerät voll", "Ä = 1 \nok"));
        let subject = mail.lines().find(|l| l.starts_with("Subject")).unwrap();
        assert_eq!(
            subject,
            "Subject: =?utf-8?q?=5Blifeboat=5D_pve1=3A_Ger=C3=A4t_voll?="
        );
        assert!(
            mail.ends_with("quoted-printable\n\n=C3=84 =3D 1=20\nok\n"),
            "{mail}"
        );
        let long = encoded_words(&"ä".repeat(200));
        assert!(long.lines().count() > 5);
        for line in long.lines() {
            assert!(line.trim().len() <= 75 && line.trim().starts_with("=?utf-8?q?"));
            assert!(line.ends_with("?="));
        }
        assert!(
            quoted_printable(&"x".repeat(2000))
                .lines()
                .all(|l| l.len() <= 76)
        );
    }
}
