//! Calendars that appointments are booked into.
//!
//! # Layout
//! - [`google`]: Google Calendar v3; `token`: its access tokens; `failure`: what its errors mean.

mod failure;
pub mod google;
mod token;

pub use google::GoogleCalendar;
