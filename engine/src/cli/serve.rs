//! `heddle serve`: runs a node until it is told to stop.

use heddle_schemas::config::Config;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::service::Service;

/// Runs a node. The first SIGTERM or SIGINT drains it, a second one ends it at once.
///
/// # Errors
/// When the node cannot start, cannot go on, or left work for the next start.
pub async fn run(config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let service = Service::start(config).await?;
    let mut told = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let over = tokio::select! {
        () = told() => false,
        () = service.over() => true,
    };
    tokio::select! {
        finished = service.stop() => match finished {
            _ if over => Err(Failure::Failed(anyhow::anyhow!(
                "the node cannot go on, and has ended; the log lines before this say why. What was in work is taken \
                 up by another node or the next start"
            ))),
            true => Ok(()),
            false => Err(Failure::Failed(anyhow::anyhow!(
                "what was in work did not finish within engine.drain; the next start takes it up"
            ))),
        },
        () = told() => Err(Failure::Failed(anyhow::anyhow!("stopped at once; the next start takes up what was in work"))),
    }
}
