//! Progress bar of a run, on a terminal.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use crate::drive::Load;
use crate::options::Until;

/// Interval between two redraws.
const DRAWN: Duration = Duration::from_millis(200);

/// The running progress bar.
pub struct Screen {
    bar: ProgressBar,
    drawing: JoinHandle<()>,
}

impl Screen {
    /// Draws the progress of the load on standard error; nothing unless it is `visible`.
    #[must_use]
    pub fn start(load: Arc<Load>, visible: bool) -> Self {
        let until = load.options().until;
        let length = match until {
            Until::Duration(duration) => u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            Until::Messages(messages) => messages.get(),
        };
        let bar = ProgressBar::new(length);
        if !visible {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("[{elapsed_precise}] {bar:40} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let drawn = bar.clone();
        let drawing = tokio::spawn(async move {
            loop {
                let progress = load.progress();
                drawn.set_position(match until {
                    Until::Duration(_) => {
                        u64::try_from(progress.elapsed.as_millis()).unwrap_or(length).min(length)
                    }
                    Until::Messages(_) => progress.sent,
                });
                drawn.set_message(format!(
                    "{} sent, {} accepted, {} replies, {} refused",
                    progress.sent, progress.accepted, progress.replied, progress.refused
                ));
                tokio::time::sleep(DRAWN).await;
            }
        });
        Self { bar, drawing }
    }

    /// Clears the bar.
    pub fn stop(self) {
        self.drawing.abort();
        self.bar.finish_and_clear();
    }
}
