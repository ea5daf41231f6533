//! `heddle serve`: runs a node until a signal stops it.

use heddle_schemas::config::Config;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::service::Service;

/// Runs a node. The first SIGTERM or SIGINT drains it, a second one stops it at once.
///
/// # Errors
/// When the node cannot start, cannot go on, or leaves work for the next start.
pub async fn run(config: Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let service = Service::start(config).await?;
    let mut signalled = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let over = tokio::select! {
        () = signalled() => false,
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
                "the work in flight did not finish within engine.drain; the next start resumes it"
            ))),
        },
        () = signalled() => Err(Failure::Failed(anyhow::anyhow!("stopped at once; the next start resumes the work in flight"))),
    }
}
