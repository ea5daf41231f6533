//! Display of the running demo: the conversations as they happen, above a progress bar.

use heddle_simulator::customers::Scene;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

/// ANSI colour codes of the customers, in turn.
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];

/// Options of the display.
pub struct Show {
    /// Colours the customers' lines; for a terminal.
    pub colours: bool,
    /// Draws a progress bar on standard error.
    pub bar: bool,
    /// Prints a line where no bar is drawn.
    pub say: Box<dyn FnMut(&str) + Send>,
}

/// Task that draws the display.
pub(super) struct Screen(JoinHandle<()>);

impl Screen {
    /// Starts to show scenes as they arrive.
    pub(super) fn start(show: Show, scenes: UnboundedReceiver<Scene>, questions: usize) -> Self {
        let bar = ProgressBar::new(questions as u64);
        if !show.bar {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style =
            ProgressStyle::with_template("[{elapsed_precise}] {bar:40} {pos}/{len} questions answered");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(tokio::spawn(draw(show, bar, scenes)))
    }

    /// Stops once every scene so far is shown.
    pub(super) async fn stop(self) {
        // Every scene is in the channel already; no more follow.
        let grace = std::time::Duration::from_millis(100);
        let mut showing = self.0;
        if tokio::time::timeout(grace, &mut showing).await.is_err() {
            showing.abort();
        }
    }
}

async fn draw(mut show: Show, bar: ProgressBar, mut scenes: UnboundedReceiver<Scene>) {
    while let Some(scene) = scenes.recv().await {
        let line = match &scene {
            Scene::Said { customer, text } => line(show.colours, *customer, "→", text, ""),
            Scene::Heard { customer, text, latency } => {
                let after =
                    latency.map_or_else(String::new, |latency| format!("  ({} ms)", latency.as_millis()));
                if latency.is_some() {
                    bar.inc(1);
                }
                line(show.colours, *customer, "←", text, &after)
            }
        };
        if bar.is_hidden() { (show.say)(&line) } else { bar.println(line) }
    }
}

fn line(colours: bool, customer: usize, arrow: &str, text: &str, after: &str) -> String {
    let name = format!("customer {:>2}", customer + 1);
    match colours {
        true => format!(
            "\x1b[{}m{name}\x1b[0m {arrow} {text}\x1b[2m{after}\x1b[0m",
            COLOURS[customer % COLOURS.len()]
        ),
        false => format!("{name} {arrow} {text}{after}"),
    }
}
