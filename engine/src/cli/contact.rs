//! `heddle contact`: who answers in a conversation.

use clap::{Args, Subcommand};
use heddle_schemas::config::Config;
use heddle_schemas::id::ConversationId;
use heddle_schemas::record::inbound::Handler;
use serde_json::json;

use super::Failure;
use super::admin::{Admin, Where};
use super::output::Output;

/// What to do with a contact.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Hand a conversation over to a human: the agent says nothing in it until it is given back.
    HandOver {
        /// Which, as events name it: tenant/channel/account/contact.
        conversation: ConversationId,
    },
    /// Give a conversation back to the agent, which answers what comes from then on.
    GiveBack {
        /// Which, as events name it: tenant/channel/account/contact.
        conversation: ConversationId,
    },
}

/// Does it.
///
/// # Errors
/// [`Failure`].
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let admin = Admin::find(config, &arguments.place).await?;
    let (conversation, by, done) = match arguments.action {
        Action::HandOver { conversation } => (conversation, Handler::Human, "is a human's"),
        Action::GiveBack { conversation } => (conversation, Handler::Agent, "is the agent's again"),
    };
    let handled = admin.handle(conversation.clone(), by).await;
    admin.close().await;
    handled?;
    output.result(&json!({ "conversation": conversation, "by": by }), || {
        format!("{conversation} {done} once what it received before is worked off")
    });
    Ok(())
}
