//! How the wizard talks to an operator; tests talk to it through a terminal of their own.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use dialoguer::Input;
use dialoguer::console::Term;
use dialoguer::theme::SimpleTheme;

use super::bars::Bars;
use crate::rescue::restore::ui::Ui;

/// The console is gone; there is nobody to ask.
#[derive(Debug, thiserror::Error)]
#[error("the console cannot be read or written: {0}")]
pub struct Gone(pub String);

/// A console with an operator.
pub trait Terminal {
    /// Shows lines of text.
    fn say(&mut self, text: &str);
    /// Asks for a line; Enter alone takes the default, or is an empty answer.
    fn ask(&mut self, question: &str, default: Option<&str>) -> Result<String, Gone>;
    /// Asks for something that is not shown.
    fn secret(&mut self, question: &str) -> Result<String, Gone>;
    /// Something to show progress with.
    fn ui(&self) -> Box<dyn Ui>;
    /// Leaves the terminal to another program while `run` runs.
    fn lend(&mut self, run: &mut dyn FnMut());
}

/// One entry of a menu.
pub struct Item {
    /// What is typed to choose it.
    pub key: String,
    /// What it is.
    pub text: String,
}

impl Item {
    /// An entry.
    pub fn new(key: impl ToString, text: impl Into<String>) -> Self {
        Self {
            key: key.to_string(),
            text: text.into(),
        }
    }
}

/// Shows a menu and asks until the answer is one of its keys; gives its position.
pub fn menu(
    terminal: &mut dyn Terminal,
    title: &str,
    items: &[Item],
    question: &str,
    default: Option<&str>,
) -> Result<usize, Gone> {
    let mut text = format!("\n{title}\n");
    for item in items {
        text.push_str(&format!("{:>4}) {}\n", item.key, item.text));
    }
    terminal.say(text.trim_end_matches('\n'));
    loop {
        let answer = terminal.ask(question, default)?;
        match items
            .iter()
            .position(|i| i.key.eq_ignore_ascii_case(answer.trim()))
        {
            Some(position) => return Ok(position),
            None => {
                let keys: Vec<&str> = items.iter().map(|i| i.key.as_str()).collect();
                terminal.say(&format!("Please answer one of: {}", keys.join(", ")));
            }
        }
    }
}

/// Asks until the answer is one of the words; a word may be shortened to its first letter.
pub fn words<'w>(
    terminal: &mut dyn Terminal,
    question: &str,
    words: &[&'w str],
    default: &'w str,
) -> Result<&'w str, Gone> {
    let question = format!("{question} ({})", words.join(", "));
    loop {
        let answer = terminal
            .ask(&question, Some(default))?
            .trim()
            .to_ascii_lowercase();
        let fits =
            |word: &&&str| **word == answer || (answer.len() == 1 && word.starts_with(&answer));
        match words.iter().find(fits) {
            Some(word) => return Ok(word),
            None => terminal.say(&format!("Please answer one of: {}", words.join(", "))),
        }
    }
}

/// Printable ASCII and newlines only: serial numbers and host names may hold anything, escape sequences included.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | ' '..='~' => c,
            '\t' => ' ',
            _ => '?',
        })
        .collect()
}

/// A real terminal, through `dialoguer`.
pub struct Dialog {
    term: Term,
    /// Lines after which a long text stops; none on serial lines, whose other end can scroll back.
    page: Option<usize>,
    modes: Option<libc::termios>,
}

impl Dialog {
    /// The terminal on the standard streams.
    pub fn on_stdio(paged: bool) -> Result<Self, Gone> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(Gone(
                "the wizard needs a terminal; without one use `lifeboat-rescue restore`".to_owned(),
            ));
        }
        give_size();
        let term = Term::stdout();
        let page = paged.then(|| usize::from(term.size().0).saturating_sub(3).max(10));
        let mut dialog = Self {
            term,
            page,
            modes: None,
        };
        dialog.take();
        Ok(dialog)
    }

    /// Keys are echoed by `dialoguer` while it asks. Those that come early must not be echoed by the kernel as well,
    /// nor held back until Enter: on a serial line a program types faster than the wizard asks.
    fn take(&mut self) {
        // SAFETY: `termios` is plain data, used only when `tcgetattr` has filled it.
        unsafe {
            let mut modes: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(io::stdin().as_raw_fd(), &mut modes) == 0 {
                self.modes.get_or_insert(modes);
                modes.c_lflag &= !(libc::ECHO | libc::ICANON);
                modes.c_cc[libc::VMIN] = 1;
                modes.c_cc[libc::VTIME] = 0;
                libc::tcsetattr(io::stdin().as_raw_fd(), libc::TCSANOW, &modes);
            }
        }
    }

    /// Gives the terminal back as it was, for a shell.
    fn give_back(&mut self) {
        if let Some(modes) = self.modes.take() {
            // SAFETY: settings that `tcgetattr` gave for the same descriptor.
            unsafe {
                libc::tcsetattr(io::stdin().as_raw_fd(), libc::TCSADRAIN, &modes);
            }
        }
    }
}

impl Drop for Dialog {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Reads a line without showing it. `dialoguer` switches the echo off after it has asked, and throws away what came before
/// that: on a serial line a program types faster.
fn secret_line(input: BorrowedFd<'_>, ask: impl FnOnce() -> io::Result<()>) -> io::Result<String> {
    // SAFETY: `termios` is plain data, used only when `tcgetattr` has filled it.
    unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(input.as_raw_fd(), &mut modes) != 0 {
            return Err(io::Error::last_os_error());
        }
        // A whole line, which the kernel lets be corrected; its end is shown.
        modes.c_lflag |= libc::ICANON | libc::ECHONL;
        modes.c_lflag &= !libc::ECHO;
        if libc::tcsetattr(input.as_raw_fd(), libc::TCSANOW, &modes) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    ask()?;
    let mut line = Vec::new();
    let mut byte = [0];
    while !matches!(line.last(), Some(b'\n')) {
        match nix::unistd::read(input, &mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => line.extend(byte),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    line.pop();
    String::from_utf8(line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// A serial line says it has no size; programs then guess differently. 80x24 is what any of them shows.
fn give_size() {
    let fd = io::stdout().as_raw_fd();
    // SAFETY: `winsize` is plain data; the ioctls read and write it only.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) == 0
            && (size.ws_row == 0 || size.ws_col == 0)
        {
            (size.ws_row, size.ws_col) = (24, 80);
            libc::ioctl(fd, libc::TIOCSWINSZ, &size);
        }
    }
}

impl Terminal for Dialog {
    fn say(&mut self, text: &str) {
        let text = plain(text);
        for (number, line) in text.lines().enumerate() {
            if self
                .page
                .is_some_and(|page| number > 0 && number % page == 0)
                && self.ask("Enter for more", Some("")).is_err()
            {
                return;
            }
            // A console that is gone shows at the next question.
            let _ = self.term.write_line(line);
        }
    }

    fn ask(&mut self, question: &str, default: Option<&str>) -> Result<String, Gone> {
        let theme = SimpleTheme;
        let mut input = Input::<String>::with_theme(&theme)
            .with_prompt(plain(question))
            .allow_empty(true)
            .report(false);
        if let Some(default) = default {
            input = input
                .default(default.to_owned())
                .show_default(!default.is_empty());
        }
        let answer = input
            .interact_on(&self.term)
            .map_err(|e| Gone(e.to_string()))?;
        // `dialoguer` takes the question off the screen; what was answered stays to be seen.
        if !answer.is_empty() {
            let _ = self.term.write_line(&format!("> {}", plain(&answer)));
        }
        let _ = io::stdout().flush();
        Ok(answer)
    }

    fn secret(&mut self, question: &str) -> Result<String, Gone> {
        let question = format!("{}: ", plain(question));
        let ask = || self.term.write_str(&question);
        let answer = secret_line(io::stdin().as_fd(), ask);
        self.take();
        answer.map_err(|e| Gone(e.to_string()))
    }

    fn ui(&self) -> Box<dyn Ui> {
        Box::new(Bars::on(self.term.clone()))
    }

    fn lend(&mut self, run: &mut dyn FnMut()) {
        self.give_back();
        run();
        self.take();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{FromRawFd, OwnedFd};

    use super::*;

    #[test]
    fn only_plain_text_reaches_a_console() {
        assert_eq!(plain("S\u{e9}rie\u{1b}[2J\tx\n"), "S?rie?[2J x\n");
    }

    #[test]
    fn a_secret_counts_from_the_question_on_and_is_never_shown() {
        let (mut ours, mut theirs) = (0, 0);
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: two integers are written, and nothing else is asked for.
        let made = unsafe {
            libc::openpty(
                &mut ours,
                &mut theirs,
                none.cast(),
                none.cast(),
                none.cast(),
            )
        };
        assert_eq!(made, 0);
        // SAFETY: fresh descriptors that nothing else owns.
        let (mut ours, theirs) = unsafe {
            (
                std::fs::File::from_raw_fd(ours),
                OwnedFd::from_raw_fd(theirs),
            )
        };
        let typed = secret_line(theirs.as_fd(), || ours.write_all(b"hunterX\x7f2\r"));
        assert_eq!(typed.unwrap(), "hunter2");
        let mut shown = [0; 64];
        let n = std::io::Read::read(&mut ours, &mut shown).unwrap();
        assert_eq!(&shown[..n], b"\r\n");
    }
}
