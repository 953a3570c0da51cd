//! How a member of a Proxmox VE cluster starts.

use super::terminal::{Gone, Terminal, words};
use super::{Answers, Screen};
use crate::rescue::cluster::Start;
use crate::rescue::restore::SHOWN;

/// Says what it means, and asks. A host that is no member is not asked about.
pub fn show(answers: &mut Answers, terminal: &mut dyn Terminal) -> Result<Screen, Gone> {
    let Some(prepared) = &mut answers.prepared else {
        return Ok(Screen::Disks);
    };
    let Some(cluster) = &prepared.finish.cluster else {
        return Ok(Screen::Check);
    };
    terminal.say(&format!(
        "\nThis host was a member of a Proxmox VE {}.\n\n\
         isolated  It starts alone. Its keys of the cluster are kept aside, and how it\n\
         \x20         rejoins is written down in the restored machine. Nothing happens to\n\
         \x20         the other nodes. This is right when you are not sure.\n\
         member    It goes back into the cluster by itself as soon as it is on the\n\
         \x20         network. Only right if it was NOT removed from the cluster meanwhile\n\
         \x20         (`pvecm nodes` on another node lists it), or if all nodes are lost.\n\n\
         In both cases: guests that were moved to another node meanwhile must not be\n\
         started here, too.",
        cluster.describe()
    ));
    if let Some(hold) = prepared.finish.on_shared() {
        terminal.say(&format!(
            "\nOther nodes reach disks of these guests, and may run them by now:\n\n  {}\n\n\
             isolated  The node starts NO guest by itself until you let it (how is written\n\
             \x20         down there). A first boot that brings guests back starts the\n\
             \x20         others, once.\n\
             member    The cluster decides what runs here.",
            hold.lines(SHOWN).join("\n  ")
        ));
    }
    let offers = ["isolated", "member", "back"];
    let start = match words(terminal, "Start it", &offers, answers.start.word())? {
        "isolated" => Start::Isolated,
        "member" => Start::Member,
        _ => return Ok(Screen::Disks),
    };
    answers.start = start;
    prepared.finish.start = start;
    prepared.request.start = start;
    Ok(Screen::Check)
}
