//! One send on its way: prepare, wait for the release, call, settle.
//!
//! The channel has no idempotency key, so a send is journaled as attempted before the call and settled after it, each
//! durably. An attempt without a result is *unknown*: the message may have been accepted. It goes to the account's
//! unknown rows until a status settles it or the wait is over. A send that does not leave, or is refused, is journaled
//! as that. A panic settles it as unknown.
//!
//! # Layout
//! - This file: the order of the steps. [`Journal`]: their stored state.
//! - `checks`: lease, consent and window, right before the call. `gate`: the release. `settle`: the ends of a send.

mod checks;
pub(super) mod gate;
mod journal;
mod settle;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use heddle_schemas::id::AccountKey;
use heddle_schemas::ports::channel::{
    Accepted, Channel, ChannelAccount, FailureClass, OutboundMessage, Scope, SendError,
};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::state::{Fence, StoreError};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::inbound::Withheld;
use heddle_schemas::record::log_aad;
use heddle_schemas::record::outbound::SealedMessage;
use heddle_schemas::table::Key;
use heddle_schemas::time::Day;
use heddle_schemas::topic::Topic;

pub use self::journal::{Journal, Taken};
use super::machine::End;
use super::schedule::lanes::Message;
use super::schedule::release::{CHECKED_WITHIN, CallEnd, Turn};
use super::sources::{Item, Origin};
use crate::context::Context;
use crate::invariants::{Invariant, is_check_fresh};
use crate::partition::commit::read;
use gate::Slot;

/// A send that has ended.
pub struct Ended {
    pub(super) item: Item,
    pub(super) end: End,
    /// When the call left, where it did.
    pub(super) left_at: Option<Duration>,
    /// When the agenda row of a send of unknown outcome is due.
    pub(super) due: Option<heddle_schemas::time::Timestamp>,
}

/// Result of the steps.
enum Step {
    /// It is settled.
    Settled {
        /// A call came through to the channel, of this generation.
        proves: bool,
    },
    /// The call was refused.
    Refused { error: SendError, is_current: bool },
    /// The outcome is unknown.
    Unknown,
    /// It did not leave.
    Returned,
}

/// Dependencies of a send.
pub(crate) struct Send {
    /// Context of the node.
    pub(crate) context: Context,
    /// The account.
    pub(crate) account: AccountKey,
    /// Under which ownership.
    pub(crate) fence: Fence,
    /// The channel.
    pub(crate) channel: Arc<dyn Channel>,
}

/// Age of the checks at which a call must not leave any more: what the release allows, and as much again for a machine
/// that is late.
const CHECK_BOUND: Duration = CHECKED_WITHIN.saturating_mul(2);

impl Send {
    /// Sends a message, or finds that it has been. Without a slot the account is disconnected, and the message is
    /// settled as withheld.
    ///
    /// # Errors
    /// When the store is closed or has another owner: nothing more may be sent then.
    pub(crate) async fn run(self, mut item: Item, slot: Option<Slot>) -> Result<Ended, StoreError> {
        let mut left_at = None;
        let steps = AssertUnwindSafe(self.steps(&mut item, slot, &mut left_at)).catch_unwind().await;
        let step = match steps {
            Ok(step) => step?,
            Err(_) => {
                self.context.ports.metrics.send_panicked();
                tracing::error!(account = %self.account, outbound = %item.command.id, "a send panicked; it is settled as unknown");
                Step::Unknown
            }
        };
        let mut due = None;
        let end = match step {
            Step::Settled { proves } => End::Settled { proves },
            Step::Refused { .. } | Step::Unknown | Step::Returned if item.erased.load(Ordering::Acquire) => {
                self.drop_erased(&item).await?;
                End::Settled { proves: false }
            }
            Step::Refused { error, is_current } => End::Refused { error, is_current },
            Step::Returned => End::Returned,
            Step::Unknown => {
                due = Some(self.unknown(&item).await?);
                End::Unknown { since: self.context.intake_gate.open_for() }
            }
        };
        Ok(Ended { item, end, left_at, due })
    }

    async fn steps(
        &self,
        item: &mut Item,
        slot: Option<Slot>,
        left_at: &mut Option<Duration>,
    ) -> Result<Step, StoreError> {
        if let Err(elsewhere) = self.context.tenants.check_region(&self.account.tenant) {
            self.bury(item, DeadReason::Region, elsewhere.to_string()).await?;
            return Ok(Step::Settled { proves: false });
        }
        if item.look_up
            && let Some(step) = self.look_up(item).await?
        {
            return Ok(step);
        }
        item.look_up = false;
        let message = match self.open(item).await? {
            Ok(message) => message,
            Err(why) => {
                self.bury(item, DeadReason::Unreadable, why).await?;
                return Ok(Step::Settled { proves: false });
            }
        };
        let Some(slot) = slot else { return self.withhold(item, Withheld::Disconnected).await };
        let attempt = item.calls + 1;
        self.journal(item, &Journal::Attempting { attempt, repeated: item.repeated }).await?;
        self.leave(item, slot, &message, attempt, left_at).await
    }

    /// Reads its earlier result from the journal; `None` where it is to be called.
    async fn look_up(&self, item: &mut Item) -> Result<Option<Step>, StoreError> {
        let ports = &self.context.ports;
        let key = Key::send(&self.account, &item.command.id);
        let found = read(&ports.metrics, || ports.state.get(&key)).await?;
        Ok(match found.as_deref().map(Journal::read) {
            None => None,
            Some(Journal::Refused { attempts }) => {
                item.calls = attempts.max(item.calls);
                None
            }
            // A message that is sent again by policy has waited for a status already.
            Some(Journal::Attempting { .. }) if matches!(item.origin, Origin::Unknown { .. }) => None,
            Some(Journal::Attempting { .. }) => Some(Step::Unknown),
            Some(
                journal @ (Journal::Taken(_) | Journal::Sent | Journal::Failed { .. } | Journal::GivenUp),
            ) => {
                self.settle(item, &journal, None, None).await?;
                Some(Step::Settled { proves: false })
            }
        })
    }

    /// Waits for the release, with the checks made right before it, and calls.
    async fn leave(
        &self,
        item: &mut Item,
        mut slot: Slot,
        message: &OutboundMessage,
        attempt: u32,
        left_at: &mut Option<Duration>,
    ) -> Result<Step, StoreError> {
        let ports = &self.context.ports;
        let mut place = None;
        let (taken, access) = loop {
            let taken = Taken::of(&item.command, ports.clock.now());
            if let Some(why) = self.check(item, taken).await? {
                return self.withhold(item, why).await;
            }
            let checked_at = ports.clock.elapsed();
            match slot.wait(item.class(), place, checked_at).await {
                Turn::Check(kept) => place = Some(kept),
                Turn::Return => {
                    self.journal(item, &Journal::Refused { attempts: item.calls }).await?;
                    return Ok(Step::Returned);
                }
                // Nothing is waited for between the release and the call. Where the lease is not certain, what has left
                // comes back and is charged all the same.
                Turn::Leave(_) => {
                    let Some(access) = self.configured() else {
                        slot.end(CallEnd::Nothing);
                        return self.withhold(item, Withheld::Disconnected).await;
                    };
                    if self.holds_now() && !self.is_window_over(taken) {
                        let is_fresh = is_check_fresh(checked_at, ports.clock.elapsed(), CHECK_BOUND);
                        ports.metrics.check(Invariant::Consent, is_fresh, || {
                            format!("a call of account {} left on a check of {checked_at:?}", self.account)
                        });
                        break (taken, access);
                    }
                    slot.end(CallEnd::Nothing);
                    self.journal(item, &Journal::Refused { attempts: item.calls }).await?;
                    return Ok(Step::Returned);
                }
            }
        };
        *left_at = Some(ports.clock.elapsed());
        let called = self.call(&access, message).await;
        let end = match &called {
            Ok(_) => CallEnd::CameThrough,
            Err(error) => CallEnd::of(error.class, error.retry_after),
        };
        let is_current = slot.end(end);
        match called {
            Ok(accepted) => {
                let taken = Taken { held: accepted.held, ..taken };
                self.settle(item, &Journal::Taken(taken), Some(&accepted), None).await?;
                self.learn(&accepted).await;
                Ok(Step::Settled { proves: is_current })
            }
            Err(error) => self.failed(item, attempt, error, is_current).await,
        }
    }

    async fn call(&self, account: &ChannelAccount, message: &OutboundMessage) -> Result<Accepted, SendError> {
        let ports = &self.context.ports;
        let began = ports.clock.elapsed();
        let call = self.channel.send(account, message);
        let result = tokio::time::timeout(self.context.options.send_timeout, call).await;
        let result = result.unwrap_or_else(|_| {
            Err(SendError {
                class: FailureClass::Unknown,
                scope: Scope::Number,
                code: None,
                detail: "no answer in time".into(),
                retry_after: None,
            })
        });
        let seconds = ports.clock.elapsed().saturating_sub(began).as_secs_f64();
        ports.metrics.sent(result.as_ref().map(|_| ()).map_err(|error| error.class), seconds);
        result
    }

    async fn failed(
        &self,
        item: &mut Item,
        attempt: u32,
        error: SendError,
        is_current: bool,
    ) -> Result<Step, StoreError> {
        match error.class {
            FailureClass::Final | FailureClass::OptedOut => {
                let code = error.code.unwrap_or_default();
                if error.class == FailureClass::OptedOut {
                    self.opted_out(item, code).await?;
                }
                self.settle(item, &Journal::Failed { code }, None, None).await?;
                Ok(Step::Settled { proves: is_current })
            }
            FailureClass::Unknown => Ok(Step::Unknown),
            FailureClass::RateLimited
            | FailureClass::PairLimited
            | FailureClass::Temporary
            | FailureClass::Unauthorized
            | FailureClass::Blocked => {
                self.journal(item, &Journal::Refused { attempts: attempt }).await?;
                item.calls = attempt;
                Ok(Step::Refused { error, is_current })
            }
        }
    }

    /// Opens the message; the inner error says why it never can be.
    async fn open(&self, item: &Item) -> Result<Result<OutboundMessage, String>, StoreError> {
        let sealed = &item.command.sealed;
        let day = Day(sealed.key_number().unwrap_or_default());
        let keys = &self.context.ports.keys;
        let opened = match keys.log(&self.account.tenant, day).await {
            Ok(cipher) => cipher.open(&log_aad(Topic::Outbound, &item.command.id), sealed),
            Err(error) => Err(error),
        };
        let plain = match opened.map_err(KeysError::passing) {
            Ok(plain) => plain,
            Err(Ok(error)) => return Err(error),
            Err(Err(error)) => return Ok(Err(error.to_string())),
        };
        Ok(serde_json::from_slice::<SealedMessage>(&plain)
            .map(|message| OutboundMessage { id: item.command.id, to: message.to, content: message.content })
            .map_err(|error| format!("what is sealed is no message: {error}")))
    }
}
