//! Moving a store: everything it holds as lines, and lines into a store again. The lines are those
//! of `docs/export-format.md`; whoever calls writes and reads them.
//! Invariants: the same content makes the same lines; a line that is read again changes nothing.
//!
//! # Example: from one store into another
//! ```
//! use std::sync::Arc;
//! use prompt_engine_core::transfer::{Export, Import};
//! use prompt_engine_core::{MemoryStore, RecordStore, Store, testkit};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let from: Arc<dyn Store> = Arc::new(MemoryStore::new());
//! let (usage, execution) = testkit::call(testkit::at(0));
//! from.append(&[usage.into(), execution.clone().into()]).await?;
//!
//! let to: Arc<dyn Store> = Arc::new(MemoryStore::new());
//! let (mut export, mut import) = (Export::new(from), Import::new(to.clone()));
//! while let Some(lines) = export.next().await? {
//!     for line in lines {
//!         let text = serde_json::to_string(&line).unwrap();
//!         import.push(serde_json::from_str(&text).unwrap()).await?;
//!     }
//! }
//! assert!(import.finish().await?.complete);
//! assert_eq!(to.execution(execution.id).await?, Some(execution));
//! # Ok::<(), prompt_engine_core::Error>(())
//! # }).unwrap();
//! ```

mod export;
mod import;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};
use crate::id::ExecutionId;
use crate::price::CostConfig;
use crate::prompt::{Prompt, PromptVersion};
use crate::pruned::PrunedSums;
use crate::record::{LlmExecution, Usage};
use crate::store::PastCost;
use crate::time::Timestamp;

pub use export::Export;
pub use import::{Import, Imported};

/// The version of the format.
pub const VERSION: u32 = 1;

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "most lines are executions: a box would cost each")]
pub enum Line {
    /// The first line: the version of the format.
    PromptEngineExport(u32),
    /// A price.
    Price(CostConfig),
    /// A prompt.
    Prompt(Prompt),
    /// A version of the prompt above.
    Version(PromptVersion),
    /// The moment before which records were deleted.
    RawHorizon(Timestamp),
    /// What records from before then add up to.
    Pruned(PrunedSums),
    /// A render.
    Usage(Usage),
    /// A call.
    Execution(LlmExecution),
    /// What the call above cost before.
    PastCosts {
        /// The call.
        execution: ExecutionId,
        /// Oldest first.
        costs: Vec<PastCost>,
    },
    /// The last line: how many there are of each.
    End(Counts),
}

/// How many lines there are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Prices.
    pub prices: u64,
    /// Prompts.
    pub prompts: u64,
    /// Versions of prompts.
    pub versions: u64,
    /// Sums of pruned records; exports of earlier builds have none.
    #[serde(default)]
    pub pruned: u64,
    /// Usages.
    pub usages: u64,
    /// Executions.
    pub executions: u64,
    /// Executions that had other costs before.
    pub past_costs: u64,
}

impl Line {
    /// Checks that it is the first line of an export that this build can read.
    ///
    /// # Errors
    /// `Unsupported` for another version of the format, `Invalid` for any other line.
    pub fn check_first(&self) -> Result<()> {
        match self {
            Self::PromptEngineExport(VERSION) => Ok(()),
            Self::PromptEngineExport(other) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("an export of version {other}; this build knows version {VERSION}"),
            )),
            _ => Err(Error::invalid("an export starts with the line {\"prompt_engine_export\":1}")),
        }
    }

    /// Puts the keys of all that callers gave as JSON in order. A build keeps them as they came where
    /// some crate in it turns on `serde_json/preserve_order`.
    fn sort_keys(&mut self) {
        let sort = |fields: &mut Map<String, Value>| {
            fields.sort_keys();
            fields.values_mut().for_each(Value::sort_all_objects);
        };
        match self {
            Self::Prompt(prompt) => prompt
                .parameters
                .iter_mut()
                .flat_map(|parameter| [&mut parameter.default, &mut parameter.example])
                .flatten()
                .for_each(Value::sort_all_objects),
            Self::Version(version) => version.metadata.sort_all_objects(),
            Self::Usage(usage) => {
                if let Some(payload) = usage.payload.as_mut().map(Arc::make_mut) {
                    sort(&mut payload.parameters);
                    sort(&mut payload.metadata);
                }
            }
            Self::Execution(execution) => {
                if let Some(payload) = execution.payload.as_mut().map(Arc::make_mut) {
                    sort(&mut payload.settings);
                    sort(&mut payload.response_metadata);
                }
            }
            Self::PromptEngineExport(_)
            | Self::Price(_)
            | Self::RawHorizon(_)
            | Self::Pruned(_)
            | Self::PastCosts { .. }
            | Self::End(_) => {}
        }
    }
}

impl Counts {
    /// The first kind of which there are not as many in `other`, and both numbers.
    fn difference(&self, other: &Self) -> Option<(&'static str, u64, u64)> {
        [
            ("prices", self.prices, other.prices),
            ("prompts", self.prompts, other.prompts),
            ("versions", self.versions, other.versions),
            ("sums of pruned records", self.pruned, other.pruned),
            ("usages", self.usages, other.usages),
            ("executions", self.executions, other.executions),
            ("past costs", self.past_costs, other.past_costs),
        ]
        .into_iter()
        .find(|(_, here, there)| here != there)
    }

    fn note(&mut self, line: &Line) {
        match line {
            Line::Price(_) => self.prices += 1,
            Line::Prompt(_) => self.prompts += 1,
            Line::Version(_) => self.versions += 1,
            Line::Pruned(_) => self.pruned += 1,
            Line::Usage(_) => self.usages += 1,
            Line::Execution(_) => self.executions += 1,
            Line::PastCosts { .. } => self.past_costs += 1,
            Line::PromptEngineExport(_) | Line::RawHorizon(_) | Line::End(_) => {}
        }
    }
}
