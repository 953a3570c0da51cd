//! The wizard: what an operator is led through, one screen per file.
//!
//! It is plain ASCII text for 80 columns, and every question is a line that ends in a colon and a space, so that it works
//! over a serial line and can be driven by a program. The questions, in the order of a restore (defaults in brackets;
//! Enter takes them):
//!
//! | screen | question | answers |
//! |---|---|---|
//! | [`points`] | `Restore point [1]: ` | a number, `s` search again, `x` shell, `r` reboot, `p` power off |
//! | | `No bundle found. Choose [s]: ` | the same letters |
//! | [`action`] | `What to do [1]: ` | 1 restore, 2 copy files out, 3 verify, 4 shell, 5 reboot, 6 power off, `b` back |
//! | [`mode`] | `How much: ` | 1 partition table, 2 boot loader, 3 system only, 4 bare metal, `b` back |
//! | [`disks`] | `Use these disks (yes, change, back) [yes]: ` | |
//! | | `Saved disk to assign [1]: ` | a number, only where there are several |
//! | | `Number of the disk to erase for it: ` | a number, or `b` |
//! | | `Assign disks by hand (change, back) [back]: ` | where there is no plan; with `leave-out` where that makes one possible |
//! | [`plan`] | `Go on with this plan (yes, back) [yes]: ` | with `space` on a bigger disk |
//! | | `Space of the bigger disk goes to (root, thin-pool, vg-free, untouched) [root]: ` | |
//! | [`network`] | `Use these network cards (yes, change, skip, back) [yes]: ` | only where a saved one is not here |
//! | | `Number of the saved network card [1]: ` | a number, or `b`; only where there are several |
//! | | `Number of the card that is enp3s0 from now on: ` | a number, 0 for none, or `b` |
//! | [`cluster`] | `Start it (isolated, member, back) [isolated]: ` | only for a member of a cluster |
//! | [`check`] | `Restore without these files (accept, back) [back]: ` | only when data are damaged |
//! | [`confirm`] | `Serial number of /dev/sda, to erase it: ` | the serial number, or `back` |
//! | | `Serial number of /dev/sda, to go on: ` | the same, where the disk is not erased |
//! | | `ERASE and the device name, to erase /dev/sda: ` | where there is none: `ERASE /dev/sda` or `ERASE sda` |
//! | [`result`] | `What now [1]: ` | 1 reboot, 2 power off, 3 shell, 4 back to the beginning |
//! | [`copy`] | `Path to copy out, or Enter when done: `, `Copy to: ` | |
//!
//! On a screen with a keyboard long texts stop with `Enter for more: `; on a serial line they do not.

pub mod action;
pub mod bars;
pub mod check;
pub mod cluster;
pub mod confirm;
pub mod copy;
pub mod disks;
mod keys;
pub mod mode;
pub mod network;
pub mod plan;
pub mod points;
pub mod result;
pub mod terminal;
pub mod work;
pub mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bundle::verify::VerifyReport;
use layout::model::NodeId;
use layout::plan::{Choices, DiskChoice, Grow, LeaveOut, Mode};

use super::bundles::Point;
use super::cluster::Start;
use super::network::Choice;
use super::restore::keys::LuksKeys;
use super::restore::{Outcome, Prepared, Request, Stop};
use terminal::{Gone, Terminal};
use world::World;

/// Where the operator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// Choose a restore point.
    Points,
    /// Choose what to do with it.
    Action,
    /// Choose how much of the machine is touched.
    Mode,
    /// Assign disks.
    Disks,
    /// Look at the plan.
    Plan,
    /// Choose network cards.
    Network,
    /// Choose how a member of a cluster starts.
    Cluster,
    /// Read all that the restore needs.
    Check,
    /// Type to confirm.
    Confirm,
    /// Restore.
    Work,
    /// See what came of it.
    Result,
    /// Verify the restore point without restoring it.
    Verify,
    /// Copy files out.
    Copy,
    /// A shell, then the screen that it was called from.
    Shell(Return),
    /// Reboot.
    Reboot,
    /// Power off.
    PowerOff,
}

/// Screens that a shell goes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// [`Screen::Points`].
    Points,
    /// [`Screen::Action`].
    Action,
    /// [`Screen::Result`].
    Result,
}

/// What the operator answered so far. A request for a restore is made of nothing else.
#[derive(Default)]
pub struct Answers {
    /// The restore point.
    pub point: Option<Point>,
    /// How much of the machine is touched.
    pub mode: Mode,
    /// Disks that were assigned by hand.
    pub disks: BTreeMap<NodeId, DiskChoice>,
    /// What takes the space of a bigger disk.
    pub grow: Grow,
    /// What is not made again, so that the rest fits.
    pub leave_out: BTreeSet<LeaveOut>,
    /// The damaged files may be missing.
    pub accept_loss: bool,
    /// What opens the LUKS containers.
    pub luks_keys: LuksKeys,
    /// Network cards that were assigned by hand.
    pub nics: BTreeMap<String, Choice>,
    /// How a member of a cluster starts.
    pub start: Start,
    /// The plan that was agreed to.
    pub prepared: Option<Prepared>,
    /// What reading everything showed.
    pub readable: Option<VerifyReport>,
    /// What came of the restore.
    pub result: Option<Result<Outcome, Stop>>,
}

impl Answers {
    /// The request that these answers stand for.
    pub fn request(&self) -> Option<Request> {
        let point = self.point.as_ref()?;
        let mut request = Request::new(point.header.id.to_string());
        request.choices = Choices {
            mode: self.mode,
            disks: self.disks.clone(),
            grow: self.grow,
            leave_out: self.leave_out.clone(),
            ..Choices::default()
        };
        request.accept_loss = self.accept_loss;
        request.luks_keys = self.luks_keys.clone();
        request.nics = self.nics.clone();
        request.start = self.start;
        Some(request)
    }

    /// Everything after the choice of a restore point is undone.
    fn with_point(point: Point) -> Self {
        Self {
            point: Some(point),
            ..Self::default()
        }
    }
}

/// Leads the operator through, until the console is gone or the machine is ended.
pub fn run(world: &mut dyn World, terminal: &mut dyn Terminal) -> Result<(), Gone> {
    let mut answers = Answers::default();
    let mut screen = Screen::Points;
    greet(world, terminal);
    loop {
        wait_while_busy(world, terminal);
        screen = match screen {
            Screen::Points => points::show(&mut answers, world, terminal)?,
            Screen::Action => action::show(&answers, terminal)?,
            Screen::Mode => mode::show(&mut answers, terminal)?,
            Screen::Disks => disks::show(&mut answers, world, terminal)?,
            Screen::Plan => plan::show(&mut answers, terminal)?,
            Screen::Network => network::show(&mut answers, terminal)?,
            Screen::Cluster => cluster::show(&mut answers, terminal)?,
            Screen::Check => check::show(&mut answers, world, terminal)?,
            Screen::Confirm => confirm::show(&answers, terminal)?,
            Screen::Work => work::show(&mut answers, world, terminal),
            Screen::Result => result::show(&answers, terminal)?,
            Screen::Verify => check::verify_only(&answers, world, terminal),
            Screen::Copy => copy::show(&answers, world, terminal)?,
            Screen::Shell(back) => {
                world.shell(terminal);
                match back {
                    Return::Points => Screen::Points,
                    Return::Action => Screen::Action,
                    Return::Result => Screen::Result,
                }
            }
            Screen::Reboot | Screen::PowerOff => {
                if let Err(error) = world.end(screen == Screen::PowerOff) {
                    terminal.say(&format!("{error:#}"));
                }
                if !world.in_rescue_system() {
                    return Ok(());
                }
                Screen::Points
            }
        };
    }
}

fn greet(world: &dyn World, terminal: &mut dyn Terminal) {
    let version = env!("CARGO_PKG_VERSION");
    terminal.say(&format!(
        "\nLifeboat rescue system {version}\n\
         Nothing is written to any disk before you have typed a confirmation."
    ));
    if let Some(reason) = world.denied() {
        terminal.say(&format!("No unattended restore: {reason}"));
    }
}

fn wait_while_busy(world: &dyn World, terminal: &mut dyn Terminal) {
    if !world.busy() {
        return;
    }
    terminal.say("A restore is under way on another console. This console waits for its end.");
    while world.busy() {
        std::thread::sleep(Duration::from_secs(2));
    }
    terminal.say("The restore on the other console has ended.");
}

#[cfg(test)]
mod tests;
