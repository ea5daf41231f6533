//! Schedule of a number: which message is next, and when its call may leave.
//!
//! All of it is pure: the time is an input, decisions are the output.
//!
//! # Layout
//! - [`lanes`]: a lane for each contact, in two classes: replies before campaigns.
//! - [`release`]: prepared calls leave as [`pace`] and [`breaker`] allow.
//! - [`pair`]: the pace of each pair of the number and a user.

pub mod breaker;
pub mod lanes;
pub mod pace;
pub mod pair;
pub mod release;

use heddle_schemas::record::outbound::Purpose;

/// Class of a message: the first always goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// It answers a customer, or is as urgent.
    Reply,
    /// Campaign message: it gets only the capacity that replies leave.
    Campaign,
}

impl Class {
    /// Every class, in order.
    pub const ALL: [Self; 2] = [Self::Reply, Self::Campaign];
}

impl From<Purpose> for Class {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Reply | Purpose::Notice => Self::Reply,
            Purpose::Campaign => Self::Campaign,
        }
    }
}
