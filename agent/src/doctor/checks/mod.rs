//! The checks, one per file.

mod boot;
mod clock;
mod configuration;
mod encryption;
mod guests;
mod history;
mod hooks;
mod kept_keys;
mod layout;
mod mail;
mod messages;
mod place;
mod plan;
mod rescue;
mod room;
mod root;
mod schedule;
mod smart;
mod state;
mod targets;
mod udev;

use super::Check;

/// All of them, in the order of the documentation.
pub const ALL: &[Check] = &[
    configuration::CHECK,
    root::CHECK,
    targets::CHECK,
    place::CHECK,
    room::CHECK,
    smart::CHECK,
    encryption::CHECK,
    kept_keys::CHECK,
    rescue::CHECK,
    layout::CHECK,
    plan::CHECK,
    boot::CHECK,
    history::CHECK,
    guests::CHECK,
    schedule::CHECK,
    udev::CHECK,
    mail::CHECK,
    messages::CHECK,
    hooks::CHECK,
    state::CHECK,
    clock::CHECK,
];
