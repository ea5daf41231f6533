//! The calendars that the promises are run on, and the ways to touch them as their owner does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_connectors::calendar::google::{GoogleCalendar, Options};
use heddle_memory::MemoryCalendar;
use heddle_memory::calendar::{CalendarAnswer, CalendarCall, CalendarReply};
use heddle_schemas::ports::calendar::{BookingId, Busy, Calendar, CalendarAccess};
use heddle_schemas::ports::clock::Clock;

use crate::calendar::google::{Does, StandIn};

/// Lost part of the next booking.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss {
    Answer,
    Request,
}

/// A calendar, and its owner.
pub(crate) trait Backend {
    fn calendar(&self) -> &dyn Calendar;
    fn access(&self) -> CalendarAccess;
    /// Another person takes a time.
    fn occupy(&self, at: Busy);
    fn cancel(&self, id: BookingId);
    fn reschedule(&self, id: BookingId, to: Busy);
    /// The next booking that gets so far is lost like this.
    fn lose(&self, loss: Loss);
    /// The appointments of ours that are not cancelled, by id.
    fn held(&self) -> Vec<(String, Busy)>;
}

pub(crate) const CALENDAR: &str = "clinic#1/a@group.calendar.google.com";

fn access(base: &str) -> CalendarAccess {
    let text = format!(
        "kind = \"google\"\ncalendar = \"{CALENDAR}\"\napi_base = \"{base}/calendar/v3\"\n\
         token_base = \"{base}/token\"\nclient_id = \"client-1\"\nclient_secret = \"secret-1\"\n\
         refresh_token = \"refresh-1\"\n"
    );
    heddle_schemas::tenant::Tenant::from_toml(&format!(
        "id = \"acme\"\nname = \"Acme\"\n[hours]\nmonday = [\"09:00-12:00\"]\n[calendar]\n{text}"
    ))
    .unwrap()
    .calendar
    .unwrap()
}

pub(crate) struct MemoryBackend {
    calendar: MemoryCalendar,
    loss: Arc<Mutex<Option<Loss>>>,
}

impl MemoryBackend {
    pub(crate) fn new() -> Self {
        let loss = Arc::new(Mutex::new(None::<Loss>));
        let next = loss.clone();
        let calendar = MemoryCalendar::new(move |call, _| match call {
            CalendarCall::Busy => CalendarAnswer::default(),
            CalendarCall::Book(_) => match next.lock().unwrap().take() {
                None => CalendarReply::Does.into(),
                Some(Loss::Answer) => CalendarReply::DoesUnheard.into(),
                Some(Loss::Request) => CalendarReply::LosesIt.into(),
            },
        });
        Self { calendar, loss }
    }
}

impl Backend for MemoryBackend {
    fn calendar(&self) -> &dyn Calendar {
        &self.calendar
    }
    fn access(&self) -> CalendarAccess {
        access("http://127.0.0.1:9")
    }
    fn occupy(&self, at: Busy) {
        self.calendar.occupy(CALENDAR, at.from, at.to);
    }
    fn cancel(&self, id: BookingId) {
        self.calendar.cancel(CALENDAR, id);
    }
    fn reschedule(&self, id: BookingId, to: Busy) {
        self.calendar.reschedule(CALENDAR, id, to.from, to.to);
    }
    fn lose(&self, loss: Loss) {
        *self.loss.lock().unwrap() = Some(loss);
    }
    fn held(&self) -> Vec<(String, Busy)> {
        let entries = self.calendar.entries(CALENDAR).into_iter();
        entries.filter_map(|entry| Some((entry.booking.id.to_string(), entry.at?))).collect()
    }
}

pub(crate) struct GoogleBackend {
    pub(crate) calendar: GoogleCalendar,
    pub(crate) google: Arc<StandIn>,
    pub(crate) base: String,
}

impl GoogleBackend {
    pub(crate) async fn start(clock: Arc<dyn Clock>) -> Self {
        let (google, base) = StandIn::start().await;
        let options = Options {
            timeout: Duration::from_millis(500),
            egress: heddle_connectors::egress::Egress::with_loopback(),
            ..Options::default()
        };
        let calendar = GoogleCalendar::new(&options, clock).unwrap();
        Self { calendar, google, base }
    }
}

impl Backend for GoogleBackend {
    fn calendar(&self) -> &dyn Calendar {
        &self.calendar
    }
    fn access(&self) -> CalendarAccess {
        access(&self.base)
    }
    fn occupy(&self, at: Busy) {
        self.google.occupy(at);
    }
    fn cancel(&self, id: BookingId) {
        self.google.change(&id.to_string(), None);
    }
    fn reschedule(&self, id: BookingId, to: Busy) {
        self.google.change(&id.to_string(), Some(to));
    }
    fn lose(&self, loss: Loss) {
        let does = match loss {
            Loss::Answer => Does::ItAndBreaksOff,
            Loss::Request => Does::Answers(503, "backendError", None),
        };
        self.google.script("POST events", does);
    }
    fn held(&self) -> Vec<(String, Busy)> {
        self.google.held()
    }
}
