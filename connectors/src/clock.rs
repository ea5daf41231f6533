//! The machine's clock.
//!
//! The wall clock may be set by hand or by NTP and then jumps. The elapsed time never goes back and
//! runs on while the machine sleeps, so a lease that ended meanwhile is seen to have ended.

use std::time::Duration;

use heddle_schemas::ports::clock::Clock;
use heddle_schemas::time::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Linux's `CLOCK_MONOTONIC` stops during suspension, `CLOCK_BOOTTIME` does not (clock_gettime(2)).
#[cfg(target_os = "linux")]
const RUNNING: ClockId = ClockId::Boottime;
/// Elsewhere the monotonic clock is the best that is there; Darwin's counts suspension.
#[cfg(not(target_os = "linux"))]
const RUNNING: ClockId = ClockId::Monotonic;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        timestamp(clock_gettime(ClockId::Realtime))
    }

    fn elapsed(&self) -> Duration {
        duration(clock_gettime(RUNNING))
    }
}

fn timestamp(time: Timespec) -> Timestamp {
    Timestamp::from_micros(time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000))
}

fn duration(time: Timespec) -> Duration {
    // A clock counted from boot is never negative, and its nanoseconds are below a second.
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(secs, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_kernel_is_read_in_microseconds() {
        // 2026-01-01T00:00:00Z is 1,767,225,600 s after the epoch.
        let time = Timespec { tv_sec: 1_767_225_600, tv_nsec: 999_999_999 };
        assert_eq!(timestamp(time).to_string(), "2026-01-01T00:00:00.999999Z");
        assert_eq!(duration(Timespec { tv_sec: 3, tv_nsec: 5 }), Duration::new(3, 5));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn elapsed_time_is_the_kernels_time_since_boot() {
        // proc(5): the first number of /proc/uptime is the time since boot, suspension included.
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let kernel: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let ours = SystemClock.elapsed().as_secs_f64();
        assert!(ours + 0.02 >= kernel && ours < kernel + 60.0, "{ours} {kernel}");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the time to compare with")]
    fn the_wall_clock_is_the_machines() {
        let before = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = SystemClock.now().as_micros();
        assert!(now >= i64::try_from(before.as_micros()).unwrap());
    }
}
