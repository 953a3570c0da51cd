//! The command line of `lifeboat-rescue`.
//!
//! As process 1 it is the rescue system. The other subcommands serve the rescue system itself (`setup`, `start`,
//! `down`), and people on any Debian live system and tests (`find`, `plan`, `restore`, `wizard`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bundle::crypt::{KeyFile, KeyRing, Secret};
use clap::{Parser, Subcommand};
use layout::plan::{Grow, LeaveOut, Mode, Plan};
use layout::system::Host;

use super::bundles::{Found, Search};
use super::cluster::Start;
use super::cmdline::CommandLine;
use super::consoles;
use super::events::{Announce, Broadcast, Line};
use super::init::{self, shutdown, shutdown::Ending};
use super::network::Choice;
use super::restore::{self, Parts, Prepared, Real, Request, Stop, ui};
use super::start;
use super::unattended;
use super::wizard::{self, terminal::Dialog, world::Machine};

/// Printed below the help. Not the numbers of `lifeboat`: here a refusal and a wrong command line are one.
const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  failed; for restore: the target disks are incomplete, or could not be compared
  2  refused, nothing was written; also for a wrong command line
  3  restored, with differences or losses";

#[derive(Parser)]
#[command(
    name = "lifeboat-rescue",
    version,
    about = "Restores a machine from a Lifeboat bundle",
    after_help = EXIT_STATUS
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What opens encrypted bundles.
#[derive(clap::Args)]
struct Keys {
    /// Open encrypted bundles with the passphrase or the recovery key in this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Open encrypted bundles with this key file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl Keys {
    fn ring(&self) -> Result<KeyRing> {
        let mut ring = KeyRing::default();
        if let Some(file) = &self.passphrase_file {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("reading the passphrase file {}", file.display()))?;
            let secret = Secret::typed(&text).with_context(|| format!("in {}", file.display()))?;
            ring.add(secret);
        }
        if let Some(file) = &self.key_file {
            ring.add(Secret::KeyFile(KeyFile::read(file)?));
        }
        Ok(ring)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Lists the bundles that are attached, and their restore points
    Find {
        /// Directories that hold a bundle, instead of all attached media
        #[arg(long, value_name = "DIR")]
        from: Vec<PathBuf>,
        #[command(flatten)]
        keys: Keys,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Restores a machine, or shows what that would do
    Restore {
        /// Directories that hold a bundle, instead of all attached media
        #[arg(long, value_name = "DIR")]
        from: Vec<PathBuf>,
        #[command(flatten)]
        keys: Keys,
        /// Beginning of the id of a restore point, or `latest`
        #[arg(long, default_value = "latest")]
        snapshot: String,
        /// Shows the plan and writes nothing
        #[arg(long, conflicts_with = "yes_erase")]
        plan_only: bool,
        /// Serial number (or device, where it has none) of a disk that the plan erases, or makes something anew on; once for
        /// each disk of the plan
        #[arg(long, value_name = "SERIAL")]
        yes_erase: Vec<String>,
        /// Saved disk and the serial or device that takes its place; onto:SAVED: it goes where that saved disk goes; missing: it
        /// is done without; SERIAL+SERIAL: onto the first, with its volume group spread over both
        #[arg(long, value_name = "SAVED=SERIAL")]
        disk: Vec<String>,
        /// How much of the machine is touched: table-repair, boot-repair, system-only or bare-metal
        #[arg(long, value_name = "MODE", default_value = "bare-metal")]
        mode: Mode,
        /// What takes the space of a larger disk: root, thin-pool, vg-free or untouched
        #[arg(long, value_name = "WHAT", default_value = "root")]
        grow: Grow,
        /// Leave all volumes as large as they were, when the new disk is larger: the same as --grow vg-free
        #[arg(long, conflicts_with = "grow")]
        no_grow: bool,
        /// Do not make this again, so that the rest fits: swap or guest-pool; repeat for both
        #[arg(long, value_name = "WHAT")]
        leave_out: Vec<LeaveOut>,
        /// Files that are damaged in every bundle may be missing
        #[arg(long)]
        accept_loss: bool,
        /// Key file of a LUKS container that is restored, given by UUID or name; once for each container
        #[arg(long, value_name = "CONTAINER=FILE")]
        luks_key: Vec<String>,
        /// Saved network card and the address or name of the one that takes its place, or none; once for each
        #[arg(long, value_name = "SAVED=MAC")]
        nic: Vec<String>,
        /// Start a member of a Proxmox VE cluster as the member it was, not alone
        #[arg(long)]
        cluster_member: bool,
        /// Where the new file systems are mounted meanwhile
        #[arg(long, default_value = "/target")]
        root: PathBuf,
        /// Where journal, plan and captures are kept
        #[arg(long, default_value = super::LOG_DIR)]
        log_dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Leads through a restore on this terminal
    Wizard {
        /// Directories that hold a bundle, instead of all attached media
        #[arg(long, value_name = "DIR")]
        from: Vec<PathBuf>,
    },
    /// Ends the rescue system and reboots
    Reboot,
    /// Ends the rescue system and powers off
    Poweroff,
    /// Mounts, modules, devices (called by process 1)
    #[command(hide = true)]
    Setup,
    /// Finds bundles and restores unattended if that was armed (called by process 1)
    #[command(hide = true)]
    Start,
    /// Unmounts and deactivates everything (called by process 1)
    #[command(hide = true)]
    Down,
}

/// What the program does. The exit statuses are in [`EXIT_STATUS`].
pub fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::main();
    }
    log_to_file();
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("lifeboat-rescue: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// In the rescue system the log lines of all parts go to a file; elsewhere to nowhere.
fn log_to_file() {
    let file = std::fs::File::options().append(true).open(super::LOG_FILE);
    if let Ok(file) = file {
        let level = if CommandLine::of_kernel().debug {
            tracing::Level::DEBUG
        } else {
            tracing::Level::INFO
        };
        let log = tracing_subscriber::fmt()
            .with_writer(std::sync::Mutex::new(file))
            .with_ansi(false)
            .with_max_level(level);
        // A second subscriber is only a matter for tests.
        let _ = log.try_init();
    }
}

fn run(command: Command) -> Result<u8> {
    match command {
        Command::Setup => init::setup::run(&Host).map(|()| 0),
        Command::Start => start::run(&Host).map(|()| 0),
        Command::Down => shutdown::down(&Host).map(|()| 0),
        Command::Reboot => shutdown::request(Ending::Reboot).map(|()| 0),
        Command::Poweroff => shutdown::request(Ending::PowerOff).map(|()| 0),
        Command::Find { from, keys, json } => find(&from, &keys, json),
        Command::Wizard { from } => wizard_on_this_terminal(from),
        Command::Restore {
            from,
            keys,
            snapshot,
            plan_only,
            yes_erase,
            disk,
            mode,
            grow,
            no_grow,
            leave_out,
            accept_loss,
            luks_key,
            nic,
            cluster_member,
            root,
            log_dir,
            json,
        } => {
            let mut request = Request::new(snapshot);
            request.choices.disks = unattended::choices(&assignments(&disk)?);
            request.choices.mode = mode;
            request.choices.grow = if no_grow { Grow::Nothing } else { grow };
            request.choices.leave_out = leave_out.into_iter().collect();
            request.accept_loss = accept_loss;
            request.luks_keys = restore::keys::LuksKeys::from_words(&luks_key)?;
            request.nics = nics(&nic)?;
            if cluster_member {
                request.start = Start::Member;
            }
            (request.root, request.log_dir) = (root, log_dir);
            let found = found(&from, &keys)?;
            let parts = Real {
                sys: &Host,
                found: &found,
            };
            let to = Broadcast {
                stdout: !json,
                log: Some(request.log_dir.join("events.log")),
                ..Broadcast::default()
            };
            if plan_only {
                show_plan(&parts, &request, json, &to)
            } else {
                restore_now(&parts, &request, &yes_erase, json, &to)
            }
        }
    }
}

fn found(from: &[PathBuf], keys: &Keys) -> Result<Found> {
    let keys = keys.ring()?;
    let found = if from.is_empty() {
        Found::on_media(&Search {
            keys,
            ..Search::default()
        })
    } else {
        Found::in_directories(from, &keys)?
    };
    for warning in &found.warnings {
        eprintln!("lifeboat-rescue: {warning}");
    }
    for locked in &found.locked {
        eprintln!("lifeboat-rescue: {}", locked.reason);
    }
    if found.stores.is_empty() && !found.locked.is_empty() {
        bail!("every bundle is locked: give --passphrase-file or --key-file");
    }
    if found.stores.is_empty() {
        bail!(
            "no usable bundle is attached; plug the stick or drive in, or name its directory with --from"
        );
    }
    Ok(found)
}

fn find(from: &[PathBuf], keys: &Keys, json: bool) -> Result<u8> {
    let found = found(from, keys)?;
    let (points, warnings) = found.points();
    for warning in warnings {
        eprintln!("lifeboat-rescue: {warning}");
    }
    if json {
        let stores: Vec<_> = found
            .stores
            .iter()
            .map(|s| serde_json::json!({ "id": s.store.id(), "dir": s.store.dir(), "place": s.place() }))
            .collect();
        println!(
            "{}",
            serde_json::to_string_pretty(
                &serde_json::json!({ "stores": stores, "points": points })
            )?
        );
        return Ok(0);
    }
    for attached in &found.stores {
        println!("bundle {} on {}", attached.store.id(), attached.place());
    }
    for point in points {
        let header = &point.header;
        let size = layout::units::Bytes(header.bytes);
        println!(
            "{}  {}  {}  {size}  {}",
            header.id.short(),
            header.shown_time(),
            header.host.hostname,
            point.verified
        );
    }
    Ok(0)
}

fn assignments(words: &[String]) -> Result<BTreeMap<String, String>> {
    words
        .iter()
        .map(|word| {
            // A saved disk's name holds no `=`; a serial number may.
            let (saved, present) = word.split_once('=').with_context(|| {
                format!("--disk {word}: give the saved disk, an equals sign, and the serial or device that takes its place")
            })?;
            Ok((saved.to_owned(), present.to_owned()))
        })
        .collect()
}

fn nics(words: &[String]) -> Result<BTreeMap<String, Choice>> {
    words
        .iter()
        .map(|word| {
            let (saved, card) = word.split_once('=').with_context(|| {
                format!("--nic {word}: give the saved network card, an equals sign, and the address or name of the one that takes its place, or none")
            })?;
            Ok((saved.to_owned(), Choice::parse(card)))
        })
        .collect()
}

fn show_plan(parts: &dyn Parts, request: &Request, json: bool, to: &dyn Announce) -> Result<u8> {
    match restore::prepare(parts, request) {
        Ok(prepared) if json => println!("{}", serde_json::to_string_pretty(&prepared.plan)?),
        Ok(prepared) => {
            println!("{}", prepared.plan.render());
            if let Some(returning) = &prepared.guests {
                println!("{}", returning.render());
            }
            let network = &prepared.finish.network;
            if !network.mapping.exact() {
                println!("{}\n", network.mapping.render());
            }
            if let Some(cluster) = &prepared.finish.cluster {
                let start = prepared.finish.start.word();
                println!(
                    "The host was a member of a {}: it starts {start}.",
                    cluster.describe()
                );
            }
            if let Some(held) = prepared.finish.render_held() {
                println!("{held}");
            }
        }
        Err(stop) => return Ok(report_stop(&stop, json, to)),
    }
    Ok(0)
}

fn restore_now(
    parts: &dyn Parts,
    request: &Request,
    erase: &[String],
    json: bool,
    to: &dyn Announce,
) -> Result<u8> {
    let ui = ui::Lines::new(to, Duration::from_secs(10));
    let outcome = restore::prepare(parts, request).and_then(|prepared: Prepared| {
        confirmed(&prepared.plan, erase)?;
        restore::check(parts, &prepared, &ui, to)?;
        restore::run(parts, &prepared, &ui, to, &mut || Ok(()))
    });
    match outcome {
        Ok(outcome) => {
            if json {
                let document = serde_json::json!({
                    "restored": true, "complete": outcome.complete(), "differences": outcome.differences,
                    "losses": outcome.losses, "notes": outcome.notes, "warnings": outcome.warnings, "seconds": outcome.seconds, "logs": outcome.logs,
                    "guests": outcome.guests,
                });
                println!("{}", serde_json::to_string_pretty(&document)?);
            }
            Ok(outcome.exit_code())
        }
        Err(stop) => Ok(report_stop(&stop, json, to)),
    }
}

fn report_stop(stop: &Stop, json: bool, to: &dyn Announce) -> u8 {
    stop.announce(to);
    if json {
        let missing = if let Stop::Refused { missing_bytes, .. } = stop {
            *missing_bytes
        } else {
            None
        };
        let damaged = if let Stop::Damaged(report) = stop {
            Some(&report.damaged)
        } else {
            None
        };
        let written = stop.written();
        let document = serde_json::json!({
            "restored": false, "reason": stop.to_string(), "missing_bytes": missing, "damaged": damaged,
            "disks_were_written_to": written,
        });
        println!("{document:#}");
    } else {
        eprintln!("lifeboat-rescue: {stop}");
    }
    stop.exit_code()
}

/// Every disk of the plan must be named, and nothing else: a serial too many means that the operator thinks of
/// another machine.
fn confirmed(plan: &Plan, erase: &[String]) -> Result<(), Stop> {
    let names = |word: &String, disk: &layout::plan::DiskAssignment| match disk
        .identity
        .serial
        .as_deref()
    {
        Some(serial) if !serial.trim().is_empty() => word == serial.trim(),
        _ => Path::new(word) == disk.device,
    };
    for disk in &plan.disks {
        if !erase.iter().any(|word| names(word, disk)) {
            let device = disk.device.display();
            let with = disk
                .identity
                .serial
                .as_deref()
                .map_or_else(|| device.to_string(), |s| s.trim().to_owned());
            let what = match &plan.in_place {
                None => format!("erases {device}"),
                Some(in_place) => {
                    let here = in_place.remade.iter().filter(|r| r.disk == disk.device);
                    let what: Vec<&str> = here.map(|r| r.what.as_str()).collect();
                    format!("makes anew on {device} ({})", what.join("; "))
                }
            };
            return Err(Stop::refused(format!(
                "the plan {what}; confirm it with --yes-erase {with}"
            )));
        }
    }
    match erase
        .iter()
        .find(|word| !plan.disks.iter().any(|disk| names(word, disk)))
    {
        Some(word) => Err(Stop::refused(format!(
            "--yes-erase {word} names no disk that the plan erases"
        ))),
        None => Ok(()),
    }
}

fn wizard_on_this_terminal(from: Vec<PathBuf>) -> Result<u8> {
    // Ctrl-C must not end a restore half way; a wizard is left through its menu.
    // SAFETY: ignoring signals has no memory effects.
    unsafe {
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP] {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
    let tty = std::fs::read_link("/proc/self/fd/0").unwrap_or_default();
    let name = tty
        .strip_prefix("/dev")
        .unwrap_or(&tty)
        .display()
        .to_string();
    let serial = consoles::Console { tty: name.clone() }.is_serial();
    let rescue = shutdown::is_rescue_system();
    let mut terminal = Dialog::on_stdio(!serial)?;
    let mut world = if !from.is_empty() {
        Machine::directories(from)?
    } else if rescue {
        let line = CommandLine::of_kernel();
        Machine::rescue_system(Search {
            medium: line.medium,
            key_file: line.key,
            ..Search::default()
        })
    } else {
        Machine::running_system()
    };
    if rescue {
        let mut line = Line::new("wizard").with("tty", name);
        if let Some(reason) = wizard::world::World::denied(&world) {
            line = line.with("reason", reason);
        }
        Broadcast::to_stdout().line(&line);
    }
    wizard::run(&mut world, &mut terminal)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use layout::plan::{DiskAssignment, DiskIdentity};
    use layout::units::{Bytes, SectorSize};

    use super::*;

    fn plan(disks: &[(&str, Option<&str>)]) -> Plan {
        let disks = disks
            .iter()
            .map(|(device, serial)| DiskAssignment {
                saved: layout::model::NodeId::new("disk:x"),
                device: device.into(),
                identity: DiskIdentity {
                    model: None,
                    serial: serial.map(str::to_owned),
                    wwn: None,
                    size: Bytes::GIB,
                    sector_size: SectorSize::S512,
                },
                erased: Vec::new(),
                why: String::new(),
                joins: None,
            })
            .collect();
        let (fence, steps, sizes, notes, tools, substitutions) = Default::default();
        Plan {
            disks,
            merged: Vec::new(),
            fence,
            steps,
            sizes,
            notes,
            tools,
            substitutions,
            in_place: None,
        }
    }

    #[test]
    fn each_disk_is_confirmed_by_its_serial() {
        let plan = plan(&[("/dev/sda", Some("S1")), ("/dev/vda", None)]);
        let words = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert!(confirmed(&plan, &words(&["S1", "/dev/vda"])).is_ok());
        assert!(confirmed(&plan, &words(&["S1"])).is_err());
        assert!(confirmed(&plan, &words(&["/dev/sda", "/dev/vda"])).is_err());
        let error = confirmed(&plan, &words(&["S1", "/dev/vda", "S9"])).expect_err("one too many");
        assert!(error.to_string().contains("S9"), "{error}");
        assert!(confirmed(&plan, &[]).is_err());
    }

    #[test]
    fn what_is_made_anew_is_named() {
        let mut plan = plan(&[("/dev/sda", Some("S1"))]);
        plan.in_place = Some(layout::plan::InPlace {
            mode: Mode::SystemOnly,
            remade: vec![layout::plan::Remade {
                disk: "/dev/sda".into(),
                what: "/: ext4 on /dev/pve/root, 3 GiB".to_owned(),
            }],
            kept: Vec::new(),
            compared: Default::default(),
        });
        let error = confirmed(&plan, &[])
            .expect_err("not confirmed")
            .to_string();
        assert!(
            error.contains("makes anew on /dev/sda (/: ext4 on /dev/pve/root, 3 GiB)")
                && error.ends_with("--yes-erase S1"),
            "{error}"
        );
    }

    #[test]
    fn assignments_need_both_sides() {
        let parsed = assignments(&["disk:a=S=1".to_owned()]).expect("two sides");
        assert_eq!(parsed["disk:a"], "S=1");
        assert!(assignments(&["disk:a".to_owned()]).is_err());
    }

    #[test]
    fn network_cards_by_address_name_or_none() {
        let words = ["a=bc:24:11:00:00:01", "b=eth0", "c=none"].map(str::to_owned);
        let parsed = nics(&words).expect("two sides each");
        assert!(matches!(parsed["a"], Choice::Mac(_)));
        assert_eq!(parsed["b"], Choice::Name("eth0".to_owned()));
        assert_eq!(parsed["c"], Choice::Nothing);
        assert!(nics(&["a".to_owned()]).is_err());
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        assert!(
            Cli::try_parse_from([
                "lifeboat-rescue",
                "restore",
                "--plan-only",
                "--yes-erase",
                "S"
            ])
            .is_err()
        );
    }
}
