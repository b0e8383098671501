//! Asking for one answer, physical call by physical call: retries of a model, then the next model.
//! Invariant: each call is told of and recorded on its own. No call follows one whose first token
//! was seen: [`Attempts::ask`] returns with the first token, and is not there to ask again.

mod flight;
mod limits;
mod live;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tracing::Instrument;

use crate::engine::RecordedCall;
use crate::llm::{ChatRequest, ChatStream, LlmClient, LlmError};
use crate::retry::RetryPolicy;
use crate::status::ErrorCategory;

pub use flight::Attempt;
pub(crate) use flight::{AttemptListener, Recording};
use flight::{Departure, Flight};
pub(crate) use limits::Limits;
pub(crate) use live::Live;

/// A model, and the client that asks it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) client: &'a dyn LlmClient,
    pub(crate) model: &'a str,
}

/// Whether an answer is asked for as a whole or as it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Whole,
    Streamed,
}

/// The physical calls of one question.
pub(crate) struct Attempts<'a> {
    /// The model to ask, and behind it those to fall back on.
    pub(crate) targets: Vec<Target<'a>>,
    pub(crate) retries: &'a RetryPolicy,
    pub(crate) way: Way,
    pub(crate) limits: Limits,
    /// How long each call may take to its first token, where it is streamed.
    pub(crate) first_token: Option<Duration>,
    pub(crate) recording: Option<Recording<'a>>,
    pub(crate) listeners: Arc<[AttemptListener]>,
    /// The turn that is asked for.
    pub(crate) turn: u32,
    /// The calls that have ended and were recorded, in order.
    pub(crate) calls: Vec<RecordedCall>,
}

impl Attempts<'_> {
    /// Asks until there is an answer, or there is no use in asking again. A model that has answered
    /// is asked first the next time.
    pub(crate) async fn ask(&mut self, request: ChatRequest) -> Result<Live, LlmError> {
        let mut request = Arc::new(request);
        let (mut number, mut of_model) = (0, 0);
        loop {
            let Some(&target) = self.targets.first() else {
                return Err(LlmError::new(
                    ErrorCategory::InvalidRequest,
                    "there is no model to ask",
                ));
            };
            target.model.clone_into(&mut Arc::make_mut(&mut request).model);
            number += 1;
            of_model += 1;
            let error = match self.once(target, &request, number).await {
                Ok(live) => return Ok(live),
                Err(error) => error,
            };
            if !self.limits.allow(Duration::ZERO) {
                return Err(error);
            }
            match self.retries.delay(of_model, &error, chance()) {
                Some(wait) if self.limits.allow(wait) => {
                    self.limits.within(tokio::time::sleep(wait).map(Ok)).await?;
                }
                _ if self.targets.len() > 1 && falls_back(error.category()) => {
                    self.targets.remove(0);
                    of_model = 0;
                }
                _ => return Err(error),
            }
        }
    }

    /// One physical call, up to its first token; a whole answer has none before its end.
    async fn once(
        &mut self,
        target: Target<'_>,
        request: &Arc<ChatRequest>,
        number: u32,
    ) -> Result<Live, LlmError> {
        let departure = Departure {
            provider: target.client.provider(),
            request: Arc::clone(request),
            turn: self.turn,
            number,
        };
        let (recording, listeners) = (self.recording.as_ref(), Arc::clone(&self.listeners));
        let mut flight = Flight::begin(departure, recording, listeners).await;
        let first = match self.way {
            Way::Whole => self.limits.clone(),
            Way::Streamed => self.limits.clone().with_timeout(self.first_token, "token"),
        };
        let opened = open(target.client, request, self.way).instrument(flight.span());
        let stream = match first.within(opened).await {
            Ok(stream) => stream,
            Err(error) => {
                self.calls.extend(flight.end(Err(&error)).await);
                return Err(error);
            }
        };
        let mut live = Live::new(flight, stream);
        if let Err(error) = live.first_token(&first, &self.limits).await {
            self.calls.extend(live.into_call());
            return Err(error);
        }
        Ok(live)
    }
}

async fn open(
    client: &dyn LlmClient,
    request: &ChatRequest,
    way: Way,
) -> Result<ChatStream, LlmError> {
    match way {
        Way::Streamed => client.stream(request).await,
        Way::Whole => client.chat_events(request).await,
    }
}

/// Whether another model may answer what this one did not. It will not mend a request that is
/// wrong, and a refusal of what the request says is an answer, too.
fn falls_back(category: ErrorCategory) -> bool {
    use ErrorCategory::{
        Authentication, Billing, Cancelled, ContentFilter, ContextLength, InvalidRequest, Network,
        Other, Overloaded, Permission, RateLimit, Server, Timeout,
    };
    match category {
        RateLimit | Overloaded | Server | Network | Timeout => true,
        // It has another key, another account, more room.
        Authentication | Permission | Billing | ContextLength => true,
        Other => true,
        InvalidRequest | ContentFilter | Cancelled => false,
    }
}

/// A number that nobody can foresee; each hasher of the standard library has keys of its own.
fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}
