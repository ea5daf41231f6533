//! Tools that find free times and book appointments in the tenant's calendar.
//!
//! An appointment is booked under an id derived from conversation, turn and call, so that a repetition after a crash
//! finds the existing one.

use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::ports::calendar::{Booking, BookingId, CalendarAccess, CalendarError, Slot, free_slots};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::responder::Tool;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use serde_json::{Value, json};

use super::{AgentTool, At, failed, text};

/// Name of the tool that books.
pub(super) const BOOK: &str = "book_appointment";
/// Number of free times in one answer.
const TIMES_OFFERED: usize = 12;
/// Maximum number of characters of an appointment's subject.
const ABOUT: usize = 200;
/// Number of calls to a calendar that is not available, and the longest pause between them.
const TRIES: u32 = 2;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Tool that finds free times.
pub(super) struct Find;
/// Books one of them.
pub(super) struct Book;

#[async_trait]
impl AgentTool for Find {
    fn offered(&self, tenant: &Tenant, now: Timestamp) -> Option<Tool> {
        let calendar = tenant.calendar.as_ref()?;
        Some(Tool {
            name: "find_appointments",
            description: format!(
                "Lists free times for an appointment of {}. It is {} now.",
                humantime::format_duration(calendar.slot),
                tenant.hours.time_zone.text(now)
            ),
            parameters: json!({
                "type": "object",
                "properties": {
                    "from": { "type": "string", "description": "The earliest, such as 2026-01-31 09:00; none for as soon as possible." },
                },
                "required": [],
            }),
        })
    }

    async fn call(&self, at: &At<'_>, arguments: &Value) -> Result<Value, KeysError> {
        let Some(calendar) = &at.tenant.calendar else { return Ok(failed("there is no calendar")) };
        let earliest = match text(arguments, "from") {
            Some(text) => match moment(at.tenant, text) {
                Some(from) => from,
                None => return Ok(failed("from is to be written as 2026-01-31 09:00")),
            },
            None => at.now,
        };
        match free(at, calendar, earliest, TIMES_OFFERED).await {
            Ok(free) => {
                let zone = &at.tenant.hours.time_zone;
                let free: Vec<_> = free.iter().map(|slot| zone.text(slot.from)).collect();
                Ok(json!({ "free": free }))
            }
            Err(error) => Ok(not_done(&error)),
        }
    }
}

#[async_trait]
impl AgentTool for Book {
    fn offered(&self, tenant: &Tenant, _: Timestamp) -> Option<Tool> {
        tenant.calendar.as_ref().map(|_| Tool {
            name: BOOK,
            description: "Books an appointment at a time that find_appointments has listed and the customer has chosen."
                .into(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "at": { "type": "string", "description": "When it begins, such as 2026-01-31 09:00." },
                    "about": { "type": "string", "description": "What it is about, in a few words." },
                },
                "required": ["at"],
            }),
        })
    }

    async fn call(&self, at: &At<'_>, arguments: &Value) -> Result<Value, KeysError> {
        let Some(calendar) = &at.tenant.calendar else { return Ok(failed("there is no calendar")) };
        let Some(from) = text(arguments, "at").and_then(|text| moment(at.tenant, text)) else {
            return Ok(failed("at is to be written as 2026-01-31 09:00"));
        };
        if at.bookings_left == 0 {
            at.ports.metrics.contact_limited("open_bookings");
            return Ok(failed(
                "the customer has as many appointments as one may have; say that a colleague will help",
            ));
        }
        let about: String = text(arguments, "about").unwrap_or("Appointment").chars().take(ABOUT).collect();
        let keys = at.ports.keys.tenant(&at.tenant.id).await?;
        let (step, number) = at.place;
        let caused_by = format!("{}/{}/{step}/{number}", at.conversation, at.turn);
        let id = keys.hash("booking", caused_by.as_bytes());
        let booking = Booking {
            id: BookingId::from_bytes(id.to_bytes()),
            from,
            to: from.after(calendar.slot),
            summary: at.name.map_or_else(|| about.clone(), |name| format!("{about} ({name})")),
            description: format!("Booked by the agent. Contact: {}", at.conversation.contact),
        };
        let booked = self.book(at, calendar, &booking).await;
        let zone = &at.tenant.hours.time_zone;
        Ok(match booked {
            Ok(booked) => json!({ "booked": zone.text(booked.from), "until": zone.text(booked.to) }),
            Err(error) => not_done(&error),
        })
    }
}

impl Book {
    async fn book(
        &self,
        at: &At<'_>,
        calendar: &CalendarAccess,
        booking: &Booking,
    ) -> Result<Slot, CalendarError> {
        let port = &at.ports.calendar;
        // Within hours, notice and horizon; the calendar checks at the booking that the time is free. An appointment
        // that this very call has booked before a crash occupies its own time, so only hours are checked here.
        let fits = free_slots(
            &at.tenant.hours,
            &[],
            at.now,
            calendar.slot,
            calendar.notice,
            calendar.horizon,
            usize::MAX,
        );
        if !fits.iter().any(|slot| slot.from == booking.from) {
            return Err(CalendarError::Refused { detail: "no appointment begins at that time".into() });
        }
        let mut tried = 0;
        loop {
            tried += 1;
            match port.book(calendar, booking).await {
                Ok(booked) => return Ok(Slot { from: booked.from, to: booked.to }),
                Err(CalendarError::Unavailable { retry_after, .. }) if tried < TRIES => {
                    let pause = retry_after.unwrap_or(Duration::from_secs(1)).min(LONGEST_PAUSE);
                    tokio::time::sleep(pause).await;
                }
                // The same id finds the earlier booking again.
                Err(CalendarError::Unknown { .. }) if tried < TRIES => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

async fn free(
    at: &At<'_>,
    calendar: &CalendarAccess,
    earliest: Timestamp,
    most: usize,
) -> Result<Vec<Slot>, CalendarError> {
    let end = at.now.after(calendar.horizon);
    let busy = at.ports.calendar.busy(calendar, at.now, end).await?;
    let CalendarAccess { slot, notice, horizon, .. } = *calendar;
    let free = free_slots(&at.tenant.hours, &busy, at.now, slot, notice, horizon, usize::MAX);
    Ok(free.into_iter().filter(|slot| slot.from >= earliest).take(most).collect())
}

/// Returns the end of the appointment in a result of the tool that books.
pub(super) fn until(tenant: &Tenant, result: &Value) -> Option<Timestamp> {
    // It begins with the day of the week.
    let (_, date) = result.get("until")?.as_str()?.split_once(' ')?;
    moment(tenant, date)
}

/// Parses a moment in the tenant's time zone; a date alone is its beginning.
fn moment(tenant: &Tenant, text: &str) -> Option<Timestamp> {
    let zone = &tenant.hours.time_zone;
    zone.parse(text).or_else(|| Some(zone.starts(text.parse().ok()?)))
}

/// Returns the result for an appointment that is not booked. It never claims a booking whose outcome is unknown.
fn not_done(error: &CalendarError) -> Value {
    match error {
        CalendarError::Taken => failed("the time is taken; ask for free times again"),
        CalendarError::Cancelled | CalendarError::Moved { .. } => failed(error),
        CalendarError::Refused { detail } => failed(format_args!("not possible: {detail}")),
        CalendarError::Unavailable { .. } => {
            failed("the calendar cannot be reached; say that a colleague will confirm")
        }
        CalendarError::Unknown { .. } => {
            failed("it is not known whether it was booked; say that a colleague will confirm")
        }
    }
}
