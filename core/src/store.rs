//! The contract of a store, in three small traits that one suite checks for every store.
//! Callers make ids and times; a store writes what it is given and judges only what it must.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregate, AggregateQuery};
use crate::cube::{Stretch, cell_of};
use crate::error::Result;
use crate::id::{ExecutionId, PromptId, UsageId};
use crate::price::CostConfig;
use crate::prompt::{Prompt, PromptVersion};
use crate::pruned::PrunedSums;
use crate::query::{Filter, Page, PageQuery, RecordQuery};
use crate::record::{LlmExecution, Record, Usage};
use crate::slug::Slug;
use crate::time::{BucketWidth, TimeRange, Timestamp};
use crate::{cost::Cost, label::Label};

/// Everything that PromptEngine keeps: implemented for whatever implements the three parts.
pub trait Store: PromptStore + RecordStore + CostStore {}

impl<T: PromptStore + RecordStore + CostStore + ?Sized> Store for T {}

/// Prompts and their versions.
///
/// A write that lost a race is a `Conflict` and changes nothing. Slugs and ids are unique for ever.
#[async_trait]
pub trait PromptStore: fmt::Debug + Send + Sync + 'static {
    /// Writes a new prompt as it is, with all its versions, in one step.
    ///
    /// # Errors
    /// `Conflict` if its slug or id is taken, or two of the versions have one number.
    async fn insert_prompt(&self, prompt: &Prompt, versions: &[PromptVersion]) -> Result<()>;

    /// Replaces a prompt whose stored revision is `prompt.revision - 1`, and adds a version where
    /// one is given, in one step. The slug, id and creation time of a prompt never change.
    ///
    /// # Errors
    /// `NotFound` if there is no such prompt; `Conflict` if the stored revision is another one, or
    /// the version number exists: two writers cannot both make version 4.
    async fn update_prompt(&self, prompt: &Prompt, version: Option<&PromptVersion>) -> Result<()>;

    /// The prompt of `slug`.
    async fn prompt_by_slug(&self, slug: &Slug) -> Result<Option<Prompt>>;

    /// The prompt of `id`.
    async fn prompt(&self, id: PromptId) -> Result<Option<Prompt>>;

    /// All prompts by slug, a page at a time.
    async fn list_prompts(&self, page: &PageQuery) -> Result<Page<Prompt>>;

    /// One version of a prompt.
    async fn version(&self, prompt: PromptId, number: u32) -> Result<Option<PromptVersion>>;

    /// The versions of a prompt, newest first, a page at a time.
    async fn list_versions(
        &self,
        prompt: PromptId,
        page: &PageQuery,
    ) -> Result<Page<PromptVersion>>;
}

/// Usages and executions, and what they add up to.
#[async_trait]
pub trait RecordStore: fmt::Debug + Send + Sync + 'static {
    /// Writes `records` in one transaction: all of them or none. A batch counts as if its records
    /// came one after the other.
    ///
    /// - The same usage again changes nothing.
    /// - A finished execution replaces its pending self. The first finished one wins: a later
    ///   one, and a pending one that comes late, change nothing.
    /// - An execution may come before its usage, and finished without ever having been pending.
    ///
    /// # Errors
    /// - `Conflict`, naming the record, if one of its id is stored (or earlier in the batch) whose
    ///   start time, attribution, usage or asked model differs.
    /// - `Invalid`, naming the record, if it breaks [`Record::validate`], or started before
    ///   the raw horizon (the message says `before the raw horizon`). The rules are judged before anything else.
    async fn append(&self, records: &[Record]) -> Result<Appended>;

    /// The measures of all records in a range, grouped. Rows come sorted by their key; a key
    /// without records has no row; without groups and bucket there is exactly one row. One answer
    /// reads one snapshot.
    ///
    /// Pruned records are still counted where a [cube](crate::Cube) has what is asked for, each at
    /// the start of its quarter of an hour; where none has they are missing. The
    /// [`Reading`](crate::Reading) says so.
    async fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregate>;

    /// Adds some thousand changes of records to the cubes, the oldest first, in one transaction. A
    /// store does so by itself as records come, and answers are right with and without. May be
    /// called at any time, by any number of processes.
    async fn fold(&self) -> Result<Folded>;

    /// Makes the cells of an hour or of a day anew, in one transaction. Of what lies before the raw
    /// horizon no cell is made anew: its records are gone.
    async fn rebuild(&self, part: Rebuild) -> Result<Rebuilt>;

    /// Takes in what records add up to that were pruned in another store, in one transaction: each sum
    /// of which no record is counted here and none can come any more, since it lies before the raw
    /// horizon. What is here stays as it is, so doing it again changes nothing, and nothing is counted
    /// twice.
    ///
    /// # Errors
    /// `Invalid`, naming the sum, if one breaks [`PrunedSums::validate`] or is there twice; none is
    /// taken in then.
    async fn restore(&self, sums: &[PrunedSums]) -> Result<Restored>;

    /// A usage with its payload.
    async fn usage(&self, id: UsageId) -> Result<Option<Usage>>;

    /// An execution with its payload.
    async fn execution(&self, id: ExecutionId) -> Result<Option<LlmExecution>>;

    /// Usages, a page at a time; without payloads unless they are asked for. Of the filter's fields
    /// those that only an execution has (provider, model, statuses) match no usage.
    async fn list_usages(&self, query: &RecordQuery) -> Result<Page<Usage>>;

    /// Executions, a page at a time; without payloads unless they are asked for.
    async fn list_executions(&self, query: &RecordQuery) -> Result<Page<LlmExecution>>;

    /// The executions whose answer took longest, at most `limit`: by latency descending, of equal
    /// ones the newest first; without payloads. Those without a latency are in no such list. It
    /// reads the records of the range (pruned ones are gone), and holds no more than `limit` of them.
    async fn slowest_executions(
        &self,
        range: &TimeRange,
        filter: &Filter,
        limit: u32,
    ) -> Result<Vec<LlmExecution>>;

    /// Changes the cost of finished executions, each only if it still has the expected cost and, where
    /// the revision says how many, had so many before, all
    /// in one transaction, which also keeps the costs that were replaced; answers one outcome a
    /// revision, in order.
    async fn revise_costs(&self, revisions: &[CostRevision]) -> Result<Vec<Revised>>;

    /// The costs that executions had before, oldest first: one list an id, in order, empty where
    /// there are none. They go with the execution.
    async fn past_costs(&self, ids: &[ExecutionId]) -> Result<Vec<Vec<PastCost>>>;

    /// Deletes old payloads and old records, at most `limit` of each, oldest first. Deleting
    /// records moves the raw horizon to `raw_before` (never back) in the same transaction, or to
    /// the start of the quarter of an hour that it lies in: what cubes keep of the records that are
    /// gone is no finer.
    async fn prune(&self, prune: &Prune) -> Result<Pruned>;

    /// Gives the space of what was deleted back to the file system, where the store has not already done
    /// so. A redb file is rewritten for that, some ten seconds a gigabyte, and all else waits for it; a call
    /// that is given up goes on.
    async fn compact(&self) -> Result<()>;

    /// The moment before which records were deleted and are refused; `None` if never pruned.
    async fn raw_horizon(&self) -> Result<Option<Timestamp>>;
}

/// Prices over time.
#[async_trait]
pub trait CostStore: fmt::Debug + Send + Sync + 'static {
    /// All prices, with the generation that the next change must name.
    async fn cost_configs(&self) -> Result<PriceList>;

    /// The generation of the prices: it grows with every change. Cheap, to be asked often.
    async fn price_generation(&self) -> Result<u64>;

    /// Adds prices, and replaces those whose id is stored, in one step; nothing is ever deleted.
    ///
    /// # Errors
    /// - `Conflict` if the stored generation is not `expected`: somebody else changed prices.
    /// - `Invalid` if a price breaks [`CostConfig::validate`], or two of one
    ///   [line](CostConfig::line) would overlap (see [`CostConfig::check_overlaps`]).
    async fn put_cost_configs(&self, configs: &[CostConfig], expected: u64) -> Result<()>;
}

/// All prices of a store at one generation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PriceList {
    /// Counts the changes of prices.
    pub generation: u64,
    /// The prices, sorted by id.
    pub configs: Vec<CostConfig>,
}

/// What [`RecordStore::append`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Appended {
    /// Records that were new, or finished a pending one.
    pub stored: u64,
    /// Records that changed nothing.
    pub unchanged: u64,
}

/// A change of one execution's cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostRevision {
    /// The execution.
    pub id: ExecutionId,
    /// The cost it must still have.
    pub expected: Cost,
    /// How many costs it must have had before; however many where absent. For who changes a cost back
    /// and forth: that it has the expected one does not say then how far somebody else has come.
    pub past: Option<u64>,
    /// The cost it gets.
    pub new: Cost,
    /// The model whose price the new cost was taken from.
    pub priced_model: Option<Label>,
    /// When it is changed.
    pub at: Timestamp,
}

/// A cost that an execution had, until a [`CostRevision`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastCost {
    /// The cost.
    pub cost: Cost,
    /// The model whose price it was taken from.
    pub priced_model: Option<Label>,
    /// When another took its place.
    pub replaced_at: Timestamp,
}

/// What became of a [`CostRevision`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revised {
    /// The cost was changed.
    Changed,
    /// The execution has another cost by now, or had another number of costs, or is pending.
    Mismatch,
    /// There is no such execution.
    NotFound,
}

/// What to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prune {
    /// Payloads of records that started before this moment.
    pub payloads_before: Option<Timestamp>,
    /// Records (and their payloads) that started before this moment.
    pub raw_before: Option<Timestamp>,
    /// How many payloads, usages and executions to delete at most, each.
    pub limit: u32,
}

/// What [`RecordStore::fold`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Folded {
    /// Changes that were added to the cubes.
    pub changes: u64,
    /// Whether some were left.
    pub more: bool,
}

/// Which cells to make anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rebuild {
    /// The quarters of the hour (UTC) of a moment, from its records, and the hour from them.
    Hour(Timestamp),
    /// Those of the day (UTC) of a moment, from its quarters.
    Day(Timestamp),
}

impl Rebuild {
    /// The width of the widest cells that are made anew, and the stretch that they are of.
    pub fn cell(self) -> (BucketWidth, Stretch) {
        let (width, at) = match self {
            Self::Hour(at) => (BucketWidth::Hour, at),
            Self::Day(at) => (BucketWidth::Day, at),
        };
        (width, cell_of(width, at))
    }
}

/// What [`RecordStore::rebuild`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Rows of cells that were written.
    pub cells: u64,
    /// Rows of records that were read.
    pub records: u64,
}

/// What became of sums of pruned records. Those that it does not count were here already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Taken in.
    pub new: u64,
    /// Left out: the records that are counted here add up to something else.
    pub other: u64,
    /// Left out: no record is counted here, and the quarter of an hour was not pruned yet.
    pub unpruned: u64,
}

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Payloads.
    pub payloads: u64,
    /// Usages.
    pub usages: u64,
    /// Executions.
    pub executions: u64,
    /// Whether nothing is left to delete.
    pub done: bool,
}
