//! Contract of calendars, in memory and with Google's API against a stand-in on loopback.

mod backend;
mod google;

use heddle_connectors::clock::SystemClock;
use heddle_memory::ManualClock;
use heddle_schemas::ports::calendar::{Booking, BookingId, Busy, CalendarError};
use heddle_schemas::time::Timestamp;
use proptest::prelude::*;

use self::backend::{Backend, GoogleBackend, Loss, MemoryBackend};

/// Returns the time this number of minutes after 2026-12-14 08:00 UTC.
fn minute(minutes: i64) -> Timestamp {
    Timestamp::from_secs(1_797_235_200 + minutes * 60)
}

fn booking(id: u8, from: i64, to: i64) -> Booking {
    Booking {
        id: BookingId::from_bytes([id; 16]),
        from: minute(from),
        to: minute(to),
        summary: "Ann Example".into(),
        description: "Phone +49 151 12345678".into(),
    }
}

fn time(from: i64, to: i64) -> Busy {
    Busy { from: minute(from), to: minute(to) }
}

async fn busy(backend: &impl Backend, from: i64, to: i64) -> Vec<Busy> {
    backend.calendar().busy(&backend.access(), minute(from), minute(to)).await.unwrap()
}

async fn book(backend: &impl Backend, booking: &Booking) -> Result<Busy, CalendarError> {
    let booked = backend.calendar().book(&backend.access(), booking).await?;
    assert_eq!(booked.event, booking.id.to_string());
    Ok(Busy { from: booked.from, to: booked.to })
}

/// Makes a test of each promise for each implementation.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&super::MemoryBackend::new()).await;
            })*
        }
        mod over_http {
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(&super::GoogleBackend::start(std::sync::Arc::new(super::SystemClock)).await).await;
            })*
        }
    };
}

promises!(
    an_appointment_booked_again_is_the_same_one,
    at_once_under_one_id_it_is_booked_once,
    at_once_for_one_time_one_appointment_is_booked,
    a_time_of_somebody_elses_is_taken_and_one_that_touches_it_is_not,
    a_cancelled_appointment_is_reported_and_its_time_is_free,
    a_moved_appointment_is_reported_with_its_time,
    busy_times_come_in_order_and_only_within_the_range,
    an_appointment_that_ends_before_it_begins_is_refused,
    a_booking_whose_answer_was_lost_is_found_under_its_id,
    a_lost_request_is_booked_when_it_is_repeated,
);

async fn an_appointment_booked_again_is_the_same_one(backend: &impl Backend) {
    let first = booking(1, 0, 30);
    for _ in 0..3 {
        assert_eq!(book(backend, &first).await, Ok(time(0, 30)));
    }
    // The owner may have written into it; it is the appointment all the same.
    let reworded = Booking { summary: "Ann".into(), ..first.clone() };
    assert_eq!(book(backend, &reworded).await, Ok(time(0, 30)));
    assert_eq!(backend.held(), [(first.id.to_string(), time(0, 30))]);
    assert_eq!(busy(backend, -60, 60).await, [time(0, 30)]);
    assert_eq!(book(backend, &booking(2, 15, 45)).await, Err(CalendarError::Taken));
    assert_eq!(book(backend, &booking(2, 30, 60)).await, Ok(time(30, 60)));
    assert_eq!(backend.held().len(), 2);
}

async fn at_once_under_one_id_it_is_booked_once(backend: &impl Backend) {
    let booking = booking(1, 0, 30);
    let all = futures::future::join_all((0..8).map(|_| book(backend, &booking))).await;
    assert!(all.iter().all(|one| *one == Ok(time(0, 30))), "{all:?}");
    assert_eq!(backend.held().len(), 1);
}

async fn at_once_for_one_time_one_appointment_is_booked(backend: &impl Backend) {
    let bookings: Vec<_> = (0..8).map(|id| booking(id, 0, 30)).collect();
    let all = futures::future::join_all(bookings.iter().map(|booking| book(backend, booking))).await;
    let booked = all.iter().filter(|one| **one == Ok(time(0, 30))).count();
    let taken = all.iter().filter(|one| **one == Err(CalendarError::Taken)).count();
    assert_eq!((booked, taken, backend.held().len()), (1, 7, 1), "{all:?}");
}

async fn a_time_of_somebody_elses_is_taken_and_one_that_touches_it_is_not(backend: &impl Backend) {
    backend.occupy(time(30, 60));
    for (from, to) in [(0, 31), (59, 90), (0, 90), (40, 50), (30, 60)] {
        assert_eq!(book(backend, &booking(1, from, to)).await, Err(CalendarError::Taken), "{from} to {to}");
    }
    assert!(backend.held().is_empty());
    assert_eq!(book(backend, &booking(1, 0, 30)).await, Ok(time(0, 30)));
    assert_eq!(book(backend, &booking(2, 60, 90)).await, Ok(time(60, 90)));
}

async fn a_cancelled_appointment_is_reported_and_its_time_is_free(backend: &impl Backend) {
    let first = booking(1, 0, 30);
    book(backend, &first).await.unwrap();
    backend.cancel(first.id);
    assert!(busy(backend, 0, 60).await.is_empty());
    assert_eq!(book(backend, &first).await, Err(CalendarError::Cancelled));
    assert_eq!(book(backend, &booking(2, 0, 30)).await, Ok(time(0, 30)));
    assert_eq!(book(backend, &first).await, Err(CalendarError::Cancelled), "also where another has the time");
}

async fn a_moved_appointment_is_reported_with_its_time(backend: &impl Backend) {
    let first = booking(1, 0, 30);
    book(backend, &first).await.unwrap();
    backend.reschedule(first.id, time(120, 150));
    assert_eq!(book(backend, &first).await, Err(CalendarError::Moved { to: Some(time(120, 150)) }));
    assert_eq!(busy(backend, 0, 240).await, [time(120, 150)]);
    backend.reschedule(first.id, time(0, 45));
    assert_eq!(book(backend, &first).await, Err(CalendarError::Moved { to: Some(time(0, 45)) }));
}

async fn busy_times_come_in_order_and_only_within_the_range(backend: &impl Backend) {
    for at in [time(90, 100), time(-20, 5), time(30, 60), time(100, 110)] {
        backend.occupy(at);
    }
    book(backend, &booking(1, 10, 20)).await.unwrap();
    assert_eq!(busy(backend, 0, 100).await, [time(-20, 5), time(10, 20), time(30, 60), time(90, 100)]);
    assert_eq!(busy(backend, 60, 90).await, []);
    assert_eq!(busy(backend, 90, 0).await, [], "nothing lies in no time");
}

async fn an_appointment_that_ends_before_it_begins_is_refused(backend: &impl Backend) {
    for (from, to) in [(30, 0), (30, 30)] {
        let error = book(backend, &booking(1, from, to)).await.unwrap_err();
        assert!(matches!(error, CalendarError::Refused { .. }), "{error:?}");
    }
    assert!(backend.held().is_empty());
}

async fn a_booking_whose_answer_was_lost_is_found_under_its_id(backend: &impl Backend) {
    let first = booking(1, 0, 30);
    backend.lose(Loss::Answer);
    let error = book(backend, &first).await.unwrap_err();
    assert!(matches!(error, CalendarError::Unknown { .. }), "{error:?}");
    assert_eq!(book(backend, &first).await, Ok(time(0, 30)));
    assert_eq!(backend.held().len(), 1);
}

async fn a_lost_request_is_booked_when_it_is_repeated(backend: &impl Backend) {
    let first = booking(1, 0, 30);
    backend.lose(Loss::Request);
    let error = book(backend, &first).await.unwrap_err();
    assert!(matches!(error, CalendarError::Unknown { .. }), "{error:?}");
    assert!(backend.held().is_empty());
    assert_eq!(book(backend, &first).await, Ok(time(0, 30)));
}

/// Event of a calendar.
#[derive(Debug, Clone)]
enum Event {
    Books { id: u8, from: i64, length: i64 },
    Occupies { from: i64, length: i64 },
    Cancels { id: u8 },
    Moves { id: u8, from: i64 },
    Loses(bool),
    Looks { from: i64 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let books = (0_u8..4, 0_i64..10, 1_i64..3);
    let event = prop_oneof![
        6 => books.prop_map(|(id, from, length)| Event::Books { id, from: from * 15, length: length * 15 }),
        1 => (0_i64..10, 1_i64..3).prop_map(|(from, length)| Event::Occupies { from: from * 15, length: length * 15 }),
        1 => (0_u8..4).prop_map(|id| Event::Cancels { id }),
        1 => (0_u8..4, 0_i64..10).prop_map(|(id, from)| Event::Moves { id, from: from * 15 }),
        1 => any::<bool>().prop_map(Event::Loses),
        2 => (0_i64..10).prop_map(|from| Event::Looks { from: from * 15 }),
    ];
    proptest::collection::vec(event, 1..25)
}

/// Runs all events and returns the callers' view.
async fn live(backend: &impl Backend, events: &[Event]) -> Vec<String> {
    let mut seen = Vec::new();
    for event in events {
        match *event {
            Event::Books { id, from, length } => {
                // A lost call is repeated under its id, as a caller does.
                let mut result = book(backend, &booking(id, from, from + length)).await;
                while matches!(result, Err(CalendarError::Unknown { .. })) {
                    result = book(backend, &booking(id, from, from + length)).await;
                }
                seen.push(format!("{result:?}"));
            }
            Event::Occupies { from, length } => backend.occupy(time(from, from + length)),
            Event::Cancels { id } => backend.cancel(BookingId::from_bytes([id; 16])),
            Event::Moves { id, from } => {
                backend.reschedule(BookingId::from_bytes([id; 16]), time(from, from + 15))
            }
            Event::Loses(answer) => backend.lose(if answer { Loss::Answer } else { Loss::Request }),
            Event::Looks { from } => seen.push(format!("{:?}", busy(backend, from, from + 60).await)),
        }
    }
    seen.push(format!("{:?}", backend.held()));
    seen
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn both_calendars_tell_the_same_story(events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (memory, google) = runtime.block_on(async {
            let google = GoogleBackend::start(std::sync::Arc::new(ManualClock::starting_at(minute(0)))).await;
            (live(&MemoryBackend::new(), &events).await, live(&google, &events).await)
        });
        prop_assert_eq!(memory, google);
    }
}
