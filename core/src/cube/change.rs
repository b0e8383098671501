//! Changes: what records add to cubes, in the order in which they came, until a fold has added them.
//! A batch of them is one value that needs nothing else to be understood: see `docs/cubes.md`.

use std::collections::HashMap;
use std::fmt;

use crate::bytes::{Reader, Writer};
use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::id::PromptId;
use crate::label::Label;
use crate::record::{Attribution, LlmExecution, Record, Usage};
use crate::status::{ErrorCategory, Status};
use crate::time::Timestamp;

use super::names::Names;
use super::plan::Extent;
use super::reader;
use super::sums::Finished;

/// The form of the values.
const VERSION: u8 = 1;

const USE: u8 = 0;
const CALL: u8 = 1;
const RECOST: u8 = 2;

/// Bits of a call beside its kind (two bits) and its status (three).
const ERROR: u8 = 1;
const TOKENS: u8 = 1 << 1;
const COST: u8 = 1 << 2;
const LATENCY: u8 = 1 << 3;
const FIRST_TOKEN: u8 = 1 << 4;

/// The changes of one transaction.
///
/// # Example: what two records change
/// ```
/// # use prompt_engine_core::cube::Changes;
/// # use prompt_engine_core::{Attribution, Label, LlmExecution, PromptId, ExecutionId, Timestamp, Usage, UsageId};
/// # let attribution = Attribution {
/// #     prompt: PromptId::new(), version: 1, environment: Label::new("test")?, session: None, user: None };
/// # let (id, created_at) = (UsageId::new(), Timestamp::now());
/// # let usage = Usage { id, attribution: attribution.clone(), created_at, payload: None };
/// # let (openai, gpt) = (Label::new("openai")?, Label::new("gpt-4o")?);
/// # let pending = LlmExecution::pending(ExecutionId::new(), id, attribution, openai, gpt, created_at);
/// let mut changes = Changes::default();
/// changes.usage(&usage);
/// changes.execution(&pending); // No cell counts a call that has not finished.
/// assert_eq!(changes.len(), 1);
/// # Ok::<(), prompt_engine_core::Error>(())
/// ```
#[derive(Default)]
pub struct Changes {
    prompts: HashMap<PromptId, u64>,
    prompt_list: Writer,
    labels: HashMap<Label, u64>,
    label_list: Writer,
    body: Writer,
    last: i64,
    count: u64,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Changes {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A record was stored, or finished a pending one.
    pub fn record(&mut self, record: &Record) {
        match record {
            Record::Usage(usage) => self.usage(usage),
            Record::Execution(call) => self.execution(call),
        }
    }

    /// A usage was stored.
    pub fn usage(&mut self, usage: &Usage) {
        self.body.byte(USE);
        self.place(usage.created_at, &usage.attribution);
    }

    /// An execution was stored, or finished a pending one.
    pub fn execution(&mut self, call: &LlmExecution) {
        if !call.status.is_final() {
            return;
        }
        self.body.byte(CALL | call.status.code() << 2);
        let cost = call.cost.and_then(|cost| pico(&cost));
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        self.body.byte(
            bit(call.error_category.is_some(), ERROR)
                | bit(call.tokens.is_some(), TOKENS)
                | bit(cost.is_some(), COST)
                | bit(call.latency_ms.is_some(), LATENCY)
                | bit(call.time_to_first_token_ms.is_some(), FIRST_TOKEN),
        );
        self.place(call.created_at, &call.attribution);
        self.asked(&call.provider, &call.model);
        if let Some(category) = call.error_category {
            self.body.byte(category.code());
        }
        if let Some(tokens) = &call.tokens {
            tokens.to_array().into_iter().for_each(|count| self.body.number(count));
        }
        cost.into_iter().for_each(|pico| self.body.signed_wide(pico));
        call.latency_ms.into_iter().for_each(|ms| self.body.number(ms));
        call.time_to_first_token_ms.into_iter().for_each(|ms| self.body.number(ms));
    }

    /// The cost of a finished execution, which `call` still has, became `new`.
    pub fn recost(&mut self, call: &LlmExecution, new: &Cost) {
        self.body.byte(RECOST);
        self.place(call.created_at, &call.attribution);
        self.asked(&call.provider, &call.model);
        self.body.option(call.cost.and_then(|old| pico(&old)), Writer::signed_wide);
        self.body.option(pico(new), Writer::signed_wide);
    }

    fn place(&mut self, at: Timestamp, of: &Attribution) {
        let at = at.as_micros();
        // Both are within the years 0001 to 9999.
        self.body.signed(at - self.last);
        self.last = at;
        let next = self.prompts.len() as u64;
        let prompt = *self.prompts.entry(of.prompt).or_insert_with(|| {
            self.prompt_list.id(of.prompt.to_bytes());
            next
        });
        self.body.number(prompt);
        self.body.number(of.version.into());
        self.label(&of.environment);
        self.count += 1;
    }

    fn asked(&mut self, provider: &Label, model: &Label) {
        self.label(provider);
        self.label(model);
    }

    fn label(&mut self, label: &Label) {
        let next = self.labels.len() as u64;
        let number = match self.labels.get(label) {
            Some(number) => *number,
            None => {
                self.label_list.text(label);
                self.labels.insert(label.clone(), next);
                next
            }
        };
        self.body.number(number);
    }

    /// The changes as one value, to be kept in the transaction that stores the records.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Writer::new(VERSION);
        value.number(self.prompts.len() as u64);
        value.append(&self.prompt_list);
        value.number(self.labels.len() as u64);
        value.append(&self.label_list);
        value.number(self.count);
        value.append(&self.body);
        value.finish()
    }
}

fn pico(cost: &Cost) -> Option<i128> {
    cost.usd().map(|usd| usd.to_pico())
}

/// A change as it is read: names are numbers of [`Names`].
#[derive(Debug)]
pub(super) struct Change {
    pub(super) at: i64,
    pub(super) prompt: u32,
    pub(super) version: u32,
    pub(super) environment: u32,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Use,
    Call { provider: u32, model: u32, call: Finished },
    Recost { provider: u32, model: u32, old: Option<i128>, new: Option<i128> },
}

/// Calls `each` with the changes of a value, in their order.
pub(super) fn read(bytes: &[u8], names: &mut Names, mut each: impl FnMut(Change)) -> Result<u64> {
    let mut value = reader(bytes, VERSION)?;
    let prompts: Vec<u32> = (0..value.count()?)
        .map(|_| Ok(names.prompt(PromptId::from_bytes(value.id()?))))
        .collect::<Result<_>>()?;
    let labels: Vec<u32> =
        (0..value.count()?).map(|_| names.label(value.text()?)).collect::<Result<_>>()?;
    let named = |numbers: &[u32], value: &mut Reader<'_>| {
        let number = usize::try_from(value.number()?).ok();
        number
            .and_then(|number| numbers.get(number).copied())
            .ok_or_else(|| Error::corrupt("a change names what is not there"))
    };
    let count = value.count()?;
    let mut at = 0_i64;
    for _ in 0..count {
        let kind = value.byte()?;
        let flags = if kind & 3 == CALL { value.byte()? } else { 0 };
        at = at.wrapping_add(value.signed()?);
        Timestamp::from_micros(at).map_err(|error| Error::corrupt(error.to_string()))?;
        let prompt = named(&prompts, &mut value)?;
        let version = value.small()?;
        let environment = named(&labels, &mut value)?;
        let what = match kind & 3 {
            USE => What::Use,
            CALL => {
                let (provider, model) = (named(&labels, &mut value)?, named(&labels, &mut value)?);
                let call = call(kind >> 2, flags, &mut value)?;
                What::Call { provider, model, call }
            }
            RECOST => What::Recost {
                provider: named(&labels, &mut value)?,
                model: named(&labels, &mut value)?,
                old: value.option(Reader::signed_wide)?,
                new: value.option(Reader::signed_wide)?,
            },
            other => return Err(Error::corrupt(format!("{other} is no kind of change"))),
        };
        each(Change { at, prompt, version, environment, what });
    }
    value.finish()?;
    Ok(count as u64)
}

/// Widens `extent` to the moments of the changes of a value.
///
/// # Errors
/// `Corrupt` if the bytes are no changes.
pub fn widen_extent(extent: &mut Extent, bytes: &[u8]) -> Result<()> {
    let mut names = Names::default();
    read(bytes, &mut names, |change| {
        if let Ok(at) = Timestamp::from_micros(change.at) {
            *extent = match *extent {
                Some((first, last)) => Some((first.min(at), last.max(at))),
                None => Some((at, at)),
            };
        }
    })?;
    Ok(())
}

fn call(status: u8, flags: u8, value: &mut Reader<'_>) -> Result<Finished> {
    let status = Status::from_code(status)
        .filter(|status| status.is_final())
        .ok_or_else(|| Error::corrupt(format!("{status} is no final status")))?;
    let maybe =
        |bit: u8, value: &mut Reader<'_>| (flags & bit != 0).then(|| value.number()).transpose();
    let error = match maybe(ERROR, value)? {
        Some(code) => Some(
            u8::try_from(code)
                .ok()
                .and_then(ErrorCategory::from_code)
                .ok_or_else(|| Error::corrupt(format!("{code} is no error category")))?,
        ),
        None => None,
    };
    let mut tokens = None;
    if flags & TOKENS != 0 {
        let mut counts = [0; 8];
        for count in &mut counts {
            *count = value.number()?;
        }
        tokens = Some(counts);
    }
    let cost = (flags & COST != 0).then(|| value.signed_wide()).transpose()?;
    let latency_ms = maybe(LATENCY, value)?;
    let first_token_ms = maybe(FIRST_TOKEN, value)?;
    Ok(Finished { status, error, tokens, cost, latency_ms, first_token_ms })
}
