//! Scripted calendars for tests, which keep their entries.
//!
//! They stand for the provider, so they survive every crash of the engine. A call that is dropped before it reached
//! the provider leaves nothing; later it has been done, even if its caller is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heddle_schemas::ports::calendar::{
    Booked, Booking, BookingId, Busy, Calendar, CalendarAccess, CalendarError,
};
use heddle_schemas::time::Timestamp;

use super::faults::pause;

/// Kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalendarCall {
    /// Query of busy times.
    Busy,
    /// Booking under this id.
    Book(BookingId),
}

/// Outcome of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CalendarReply {
    /// The call is done, and answered.
    #[default]
    Does,
    /// The call is not done, for this reason.
    Refuses(CalendarError),
    /// The call is done and the answer lost.
    DoesUnheard,
    /// The call is lost on the way there.
    LosesIt,
    /// The call is done and no answer ever comes.
    DoesAndHangs,
    /// The call is not done and no answer ever comes.
    Hangs,
}

/// Script of one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CalendarAnswer {
    /// Until the provider has it.
    pub before: Duration,
    /// Time from there until the caller gets the answer.
    pub after: Duration,
    /// Its outcome.
    pub reply: CalendarReply,
}

impl From<CalendarReply> for CalendarAnswer {
    fn from(reply: CalendarReply) -> Self {
        Self { reply, ..Self::default() }
    }
}

/// An appointment of ours, as the calendar's owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Booking.
    pub booking: Booking,
    /// Time of the event; `None` when it was cancelled.
    pub at: Option<Busy>,
}

/// One calendar.
#[derive(Debug, Default)]
struct Pages {
    others: Vec<Busy>,
    entries: BTreeMap<BookingId, Entry>,
}

impl Pages {
    fn busy(&self, from: Timestamp, to: Timestamp) -> Vec<Busy> {
        let ours = self.entries.values().filter_map(|entry| entry.at);
        let mut busy: Vec<_> =
            self.others.iter().copied().chain(ours).filter(|busy| busy.from < to && from < busy.to).collect();
        busy.sort_unstable();
        busy
    }

    fn book(&mut self, booking: &Booking) -> Result<Booked, CalendarError> {
        let wanted = Busy { from: booking.from, to: booking.to };
        match self.entries.get(&booking.id) {
            Some(Entry { at: None, .. }) => return Err(CalendarError::Cancelled),
            Some(Entry { at: Some(at), .. }) if *at != wanted => {
                return Err(CalendarError::Moved { to: Some(*at) });
            }
            Some(_) => {}
            None if booking.from >= booking.to => {
                let detail = "an appointment ends after it begins; correct its times".into();
                return Err(CalendarError::Refused { detail });
            }
            None if !self.busy(booking.from, booking.to).is_empty() => return Err(CalendarError::Taken),
            None => {
                self.entries.insert(booking.id, Entry { booking: booking.clone(), at: Some(wanted) });
            }
        }
        Ok(Booked { event: booking.id.to_string(), from: booking.from, to: booking.to })
    }
}

#[derive(Debug, Default)]
struct Held {
    calls: Vec<CalendarCall>,
    calendars: BTreeMap<String, Pages>,
}

/// Scripts a call, given the number of earlier calls of its kind; for bookings, under the same id.
type Script = dyn Fn(CalendarCall, usize) -> CalendarAnswer + Send + Sync;

/// Calendars in memory, by [`CalendarAccess::calendar`]. By default everything is done and answered at once.
pub struct MemoryCalendar {
    script: Box<Script>,
    held: Mutex<Held>,
}

impl Default for MemoryCalendar {
    fn default() -> Self {
        Self::new(|_, _| CalendarAnswer::default())
    }
}

impl MemoryCalendar {
    /// Answers as `script` says; it is given the call, and how many of its kind were made before, for bookings
    /// under the same id.
    #[must_use]
    pub fn new(script: impl Fn(CalendarCall, usize) -> CalendarAnswer + Send + Sync + 'static) -> Self {
        Self { script: Box::new(script), held: Mutex::default() }
    }

    /// Another person takes a time.
    pub fn occupy(&self, calendar: &str, from: Timestamp, to: Timestamp) {
        self.lock().calendars.entry(calendar.into()).or_default().others.push(Busy { from, to });
    }

    /// The owner cancels an appointment of ours.
    pub fn cancel(&self, calendar: &str, id: BookingId) {
        self.change(calendar, id, None);
    }

    /// The owner moves an appointment of ours.
    pub fn reschedule(&self, calendar: &str, id: BookingId, from: Timestamp, to: Timestamp) {
        self.change(calendar, id, Some(Busy { from, to }));
    }

    fn change(&self, calendar: &str, id: BookingId, at: Option<Busy>) {
        let mut held = self.lock();
        if let Some(entry) = held.calendars.get_mut(calendar).and_then(|pages| pages.entries.get_mut(&id)) {
            entry.at = at;
        }
    }

    /// Every appointment of ours that was ever in a calendar, by id.
    #[must_use]
    pub fn entries(&self, calendar: &str) -> Vec<Entry> {
        let held = self.lock();
        held.calendars
            .get(calendar)
            .map(|pages| pages.entries.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Every call, in order, also those that did not reach the provider.
    #[must_use]
    pub fn calls(&self) -> Vec<CalendarCall> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the script of a call. `lost` is the caller's result if no answer comes.
    async fn call<T>(
        &self,
        call: CalendarCall,
        access: &CalendarAccess,
        lost: CalendarError,
        act: impl FnOnce(&mut Pages) -> Result<T, CalendarError> + Send,
    ) -> Result<T, CalendarError> {
        let earlier = {
            let mut held = self.lock();
            let earlier = held.calls.iter().filter(|one| **one == call).count();
            held.calls.push(call);
            earlier
        };
        let CalendarAnswer { before, after, reply } = (self.script)(call, earlier);
        pause(before).await;
        let does =
            matches!(reply, CalendarReply::Does | CalendarReply::DoesUnheard | CalendarReply::DoesAndHangs);
        let done = does.then(|| act(self.lock().calendars.entry(access.calendar.clone()).or_default()));
        pause(after).await;
        match (reply, done) {
            (CalendarReply::Does, Some(result)) => result,
            (CalendarReply::Refuses(error), _) => Err(error),
            (CalendarReply::DoesAndHangs | CalendarReply::Hangs, _) => std::future::pending().await,
            _ => Err(lost),
        }
    }
}

#[async_trait]
impl Calendar for MemoryCalendar {
    async fn busy(
        &self,
        calendar: &CalendarAccess,
        from: Timestamp,
        to: Timestamp,
    ) -> Result<Vec<Busy>, CalendarError> {
        let lost = CalendarError::Unavailable { detail: LOST.into(), retry_after: None };
        self.call(CalendarCall::Busy, calendar, lost, |pages| Ok(pages.busy(from, to))).await
    }

    async fn book(&self, calendar: &CalendarAccess, booking: &Booking) -> Result<Booked, CalendarError> {
        let lost = CalendarError::Unknown { detail: LOST.into() };
        self.call(CalendarCall::Book(booking.id), calendar, lost, |pages| pages.book(booking)).await
    }
}

const LOST: &str = "the connection was lost, scripted";

impl std::fmt::Debug for MemoryCalendar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryCalendar").field("calls", &self.lock().calls.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use heddle_schemas::ports::calendar::CalendarKind;
    use heddle_schemas::sealed::Secret;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn access() -> CalendarAccess {
        CalendarAccess {
            kind: CalendarKind::Google,
            calendar: "primary".into(),
            api_base: "http://127.0.0.1".into(),
            token_base: "http://127.0.0.1".into(),
            client_id: "client".into(),
            client_secret: Secret::new("secret"),
            refresh_token: Secret::new("refresh"),
            slot: HOUR,
            notice: HOUR,
            horizon: 24 * HOUR,
        }
    }

    fn booking(id: u8) -> Booking {
        let from = Timestamp::from_secs(i64::from(id) * 3_600);
        let id = BookingId::from_bytes([id; 16]);
        Booking { id, from, to: from.after(HOUR), summary: String::new(), description: String::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn outcome_and_answer_are_scripted_apart() {
        let refused = CalendarError::Refused { detail: "scripted".into() };
        let script = [
            CalendarReply::Does,
            CalendarReply::Refuses(refused.clone()),
            CalendarReply::DoesUnheard,
            CalendarReply::LosesIt,
            CalendarReply::DoesAndHangs,
            CalendarReply::Hangs,
        ];
        let ids: Vec<_> = (0..6).map(|id| booking(id).id).collect();
        let calendar = MemoryCalendar::new(move |call, earlier| match call {
            CalendarCall::Book(id) if earlier == 0 => {
                script[ids.iter().position(|one| *one == id).unwrap()].clone().into()
            }
            _ => CalendarAnswer::default(),
        });
        let mut results = Vec::new();
        for id in 0..6 {
            let minute = Duration::from_secs(60);
            let result = tokio::time::timeout(minute, calendar.book(&access(), &booking(id))).await;
            results.push(result.ok().map(|result| result.map(drop)));
        }
        let unknown = CalendarError::Unknown { detail: LOST.into() };
        let (done, lost) = (Some(Ok(())), Some(Err(unknown)));
        assert_eq!(results, [done, Some(Err(refused)), lost.clone(), lost, None, None]);
        let held = |calendar: &MemoryCalendar| {
            calendar.entries("primary").iter().map(|entry| entry.booking.id).collect::<Vec<_>>()
        };
        assert_eq!(held(&calendar), [0, 2, 4].map(|id| booking(id).id));
        // When repeated, each of them exists exactly once.
        for id in 0..6 {
            calendar.book(&access(), &booking(id)).await.unwrap();
        }
        assert_eq!(held(&calendar), [0, 1, 2, 3, 4, 5].map(|id| booking(id).id));
        assert_eq!(calendar.calls().len(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_dropped_on_its_way_leaves_nothing_and_on_its_way_back_everything() {
        let slow = CalendarAnswer { before: HOUR, after: HOUR, reply: CalendarReply::Does };
        let calendar = MemoryCalendar::new(move |_, _| slow.clone());
        for (waited, held) in [(30, 0), (90, 1)] {
            let wait = Duration::from_secs(waited * 60);
            assert!(tokio::time::timeout(wait, calendar.book(&access(), &booking(1))).await.is_err());
            assert_eq!(calendar.entries("primary").len(), held);
        }
    }
}
