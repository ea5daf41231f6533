//! Calendars that appointments are booked into.
//!
//! # Layout
//! - [`google`]: Google Calendar v3; `token`: its access tokens; `lines`: who waits for them; `failure`: what its
//!   errors mean.

mod failure;
pub mod google;
mod lines;
mod token;

pub use google::GoogleCalendar;
