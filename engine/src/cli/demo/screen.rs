//! What the demo shows while it runs: the conversations as they happen, above a progress bar.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use crate::cli::output::Output;
use crate::simulator::customers::Scene;

/// Colours of customers, in turn; ANSI codes.
const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];

/// The screen, as long as it shows something.
pub(super) struct Screen(JoinHandle<()>);

impl Screen {
    /// Shows scenes as they come.
    pub(super) fn start(output: &Output, scenes: UnboundedReceiver<Scene>, questions: usize) -> Self {
        let colours = output.is_terminal();
        let bar = ProgressBar::new(questions as u64);
        if output.is_json() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style =
            ProgressStyle::with_template("[{elapsed_precise}] {bar:40} {pos}/{len} questions answered");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut output = Output::new(output.is_json());
        Self(tokio::spawn(async move { show(&mut output, &bar, colours, scenes).await }))
    }

    /// Ends when everything that has happened is shown.
    pub(super) async fn stop(self) {
        // What has happened is in the channel already; nothing more comes.
        let grace = std::time::Duration::from_millis(100);
        let mut showing = self.0;
        if tokio::time::timeout(grace, &mut showing).await.is_err() {
            showing.abort();
        }
    }
}

async fn show(output: &mut Output, bar: &ProgressBar, colours: bool, mut scenes: UnboundedReceiver<Scene>) {
    while let Some(scene) = scenes.recv().await {
        let line = match &scene {
            Scene::Said { customer, text } => told(colours, *customer, "→", text, ""),
            Scene::Heard { customer, text, latency } => {
                let after =
                    latency.map_or_else(String::new, |latency| format!("  ({} ms)", latency.as_millis()));
                if latency.is_some() {
                    bar.inc(1);
                }
                told(colours, *customer, "←", text, &after)
            }
        };
        if bar.is_hidden() { output.say(&line) } else { bar.println(line) }
    }
}

fn told(colours: bool, customer: usize, arrow: &str, text: &str, after: &str) -> String {
    let name = format!("customer {:>2}", customer + 1);
    match colours {
        true => format!(
            "\x1b[{}m{name}\x1b[0m {arrow} {text}\x1b[2m{after}\x1b[0m",
            COLOURS[customer % COLOURS.len()]
        ),
        false => format!("{name} {arrow} {text}{after}"),
    }
}
