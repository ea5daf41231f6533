//! Scenarios against peers and raw limits.
