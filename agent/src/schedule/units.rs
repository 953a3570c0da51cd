//! The timers that a configuration asks for, and the services that they start, as text.

use std::path::Path;

use super::{Settings, When};

/// What may run by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Job {
    /// A backup of the host.
    Host,
    /// A backup of the guests alone.
    Guests,
    /// Targets are read again.
    Verify,
    /// Somebody is told when backups are overdue, which no backup can tell.
    Check,
}

/// First line of what is made by the program, and may be changed and removed by it.
pub const MADE: &str = "# Made by `lifeboat schedule apply`: change [schedule] in /etc/lifeboat/lifeboat.toml, and run it again.";

impl Job {
    /// All of them.
    pub const ALL: [Job; 4] = [Job::Host, Job::Guests, Job::Verify, Job::Check];

    /// Whether it keeps to the window, and to the longest duration: it works for long.
    pub fn is_long(self) -> bool {
        self != Job::Check
    }

    /// The name of its setting.
    pub fn setting(self) -> &'static str {
        match self {
            Job::Host => "host",
            Job::Guests => "guests",
            Job::Verify => "verify",
            Job::Check => "check",
        }
    }

    /// When it is to run.
    pub fn when(self, settings: &Settings) -> &When {
        match self {
            Job::Host => &settings.host,
            Job::Guests => &settings.guests,
            Job::Verify => &settings.verify,
            Job::Check => &settings.check,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Job::Host => "lifeboat-backup",
            // `lifeboat-guests.service` brings guests back after a restore.
            Job::Guests => "lifeboat-guests-backup",
            Job::Verify => "lifeboat-verify",
            Job::Check => "lifeboat-check",
        }
    }

    /// The name of its timer.
    pub fn timer(self) -> String {
        format!("{}.timer", self.unit())
    }

    /// The name of its service.
    pub fn service(self) -> String {
        format!("{}.service", self.unit())
    }

    fn template(self) -> &'static str {
        match self {
            Job::Host => include_str!("../../../udev-rules/lifeboat-backup.service"),
            Job::Guests => include_str!("../../../udev-rules/lifeboat-guests-backup.service"),
            Job::Verify => include_str!("../../../udev-rules/lifeboat-verify.service"),
            Job::Check => include_str!("../../../udev-rules/lifeboat-check.service"),
        }
    }

    /// The timer's text; nothing where it is never to run.
    pub fn timer_text(self, settings: &Settings) -> Option<String> {
        let when = self.when(settings);
        let calendar = when.calendar()?;
        let what = match self {
            Job::Host => "Back up this host with Lifeboat",
            Job::Guests => "Back up the guests of this host with Lifeboat",
            Job::Verify => "Read the targets of Lifeboat again",
            Job::Check => "Look whether the backups of Lifeboat are as fresh as they should be",
        };
        let delay = match settings.random_delay.seconds() {
            0 => String::new(),
            seconds => format!("RandomizedDelaySec={seconds}\n"),
        };
        Some(format!(
            "{MADE}\n\
             [Unit]\n\
             Description={what}: {when}\n\
             \n\
             [Timer]\n\
             OnCalendar={calendar}\n\
             {delay}\
             # What was missed while the machine was off is caught up.\n\
             Persistent=true\n\
             \n\
             [Install]\n\
             WantedBy=timers.target\n"
        ))
    }

    /// The service's text, for a machine on which no package has installed it.
    pub fn service_text(self, program: &Path) -> String {
        let program = escape(&program.to_string_lossy());
        format!(
            "{MADE}\n{}",
            self.template().replace("@LIFEBOAT@", &program)
        )
    }
}

/// A path as `ExecStart=` takes it.
fn escape(path: &str) -> String {
    let path = path.replace('%', "%%").replace('$', "$$");
    match path.contains([' ', '"', '\'', '\\', ';']) {
        true => format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"")),
        false => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_made_of_the_settings() {
        let settings = Settings {
            host: "daily 02:00".parse().unwrap(),
            random_delay: "20min".parse().unwrap(),
            ..Settings::default()
        };
        let text = Job::Host.timer_text(&settings).unwrap();
        for line in [
            "OnCalendar=*-*-* 02:00:00",
            "RandomizedDelaySec=1200",
            "Persistent=true",
            "WantedBy=timers.target",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert!(text.starts_with(MADE));
        assert_eq!(Job::Guests.timer_text(&settings), None);
    }

    #[test]
    fn services_start_the_program_with_its_trigger() {
        for job in Job::ALL {
            let text = job.service_text(Path::new("/usr/local/sbin/lifeboat"));
            let line = text.lines().find(|l| l.starts_with("ExecStart=")).unwrap();
            assert!(
                line.starts_with("ExecStart=/usr/local/sbin/lifeboat "),
                "{line}"
            );
            let words = line.split_whitespace().skip(1);
            let args: Vec<&str> = ["lifeboat"].into_iter().chain(words).collect();
            let cli = <crate::cli::Cli as clap::Parser>::try_parse_from(args).unwrap();
            let start = match cli.command {
                crate::cli::Command::Backup(args) => {
                    assert_eq!(args.only_guests, job == Job::Guests);
                    args.start
                }
                crate::cli::Command::Verify(args) => args.start,
                crate::cli::Command::Status(args) => {
                    assert!(args.notify && job == Job::Check);
                    continue;
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(start.trigger, crate::history::Trigger::Timer);
        }
    }

    #[test]
    fn odd_paths_are_quoted() {
        assert_eq!(escape("/usr/bin/lifeboat"), "/usr/bin/lifeboat");
        assert_eq!(escape("/opt/life boat/x"), "\"/opt/life boat/x\"");
        assert_eq!(escape("/opt/100%"), "/opt/100%%");
    }
}
