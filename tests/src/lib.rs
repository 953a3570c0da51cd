//! What tests and the generators of their fixtures share.

pub mod fixture;
