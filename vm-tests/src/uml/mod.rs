//! The storage floor: layout files are applied on a real kernel (User Mode Linux) in seconds, without booting a machine.
//!
//! A file in `layouts/` is by itself a test ([`case`]). `uml-floor` (in `floor/`) is process 1 of the machine: it makes
//! the disks dirty, plans, applies, captures again, compares, does it all a second time, and checks facts with tools that
//! are not ours. What runs outside is in [`machine`] and [`power`].
//! With `"cuts": true` restores of the file are also cut and made to fail at many places.

pub mod case;
pub mod consistency;
pub mod machine;
pub mod power;
