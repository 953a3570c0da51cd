//! Containers' archives: made and read by GNU tar, and made by nobody who means well.

mod dumps;
mod gnu;
mod hostile;
mod limits;
mod mixed;
mod odd;
mod order;
mod support;
