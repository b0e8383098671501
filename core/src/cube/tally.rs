//! The tally of an answer: cells, changes and records are added to it in any order.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::aggregate::{
    Aggregate, AggregateQuery, Dimension, GroupKey, Measures, Reading, Recount,
};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{LlmExecution, Usage};
use crate::time::{BucketCursor, BucketWidth, Timestamp};

use super::Cube;
use super::cell::{self, Lead, Series, read_lead};
use super::change::{self, What};
use super::lot::apply;
use super::names::Names;
use super::plan::Plan;
use super::start_of;
use super::sums::Sums;

/// Adds up what a [`Plan`] reads.
#[derive(Debug)]
pub struct Tally<'a> {
    query: &'a AggregateQuery,
    plan: &'a Plan,
    /// What counts: records, one by one, and cells and changes.
    recount: Recount<'a>,
    added: Grouped,
    /// What is taken away, since the range leaves it out, and cells that were added do not.
    outside: Recount<'a>,
    taken: Grouped,
    names: Names,
    bucket: Option<BucketCursor>,
    reading: Reading,
}

/// Rows of the answer, and the sums of each.
#[derive(Debug, Clone)]
struct Grouped {
    rows: Rows,
    sums: Vec<Sums>,
}

/// Which row of the answer a series belongs to.
#[derive(Debug, Clone)]
struct Rows {
    by: Group,
    wanted: Wanted,
    places: HashMap<Group, usize, RandomState>,
    /// Those that series had last, each where the numbers of its group say: most series of a cell have
    /// one of few rows, and finding it here is cheaper.
    recent: [Option<(Group, usize)>; RECENT],
}

const RECENT: usize = 64;

/// What a row is told apart by; what is not grouped by is 0. As [`Rows::by`] it is the masks that make it so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Group {
    bucket: i64,
    prompt: u32,
    version: u32,
    environment: u32,
    provider: u32,
    model: u32,
}

/// The filter, as numbers of [`Names`].
#[derive(Debug, Clone, Copy)]
struct Wanted {
    prompt: Option<u32>,
    version: Option<u32>,
    environment: Option<u32>,
    provider: Option<u32>,
    model: Option<u32>,
}

impl Group {
    fn recent(&self) -> usize {
        let mixed = self.model ^ self.provider << 2 ^ self.environment << 3 ^ self.version << 4;
        mixed as usize % RECENT
    }
}

impl Rows {
    /// The place of the row; `None` if the filter leaves the series out.
    fn place(
        &mut self,
        bucket: i64,
        lead: Lead,
        series: Series,
        sums: &mut Vec<Sums>,
    ) -> Option<usize> {
        // Either the lead or the series has them, and the other 0.
        let (provider, model) = (lead.provider | series.provider, lead.model | series.model);
        let is = |wanted: Option<u32>, found: u32| wanted.is_none_or(|wanted| wanted == found);
        let counts = is(self.wanted.prompt, lead.prompt)
            && is(self.wanted.version, series.version)
            && is(self.wanted.environment, series.environment)
            && is(self.wanted.provider, provider)
            && is(self.wanted.model, model);
        if !counts {
            return None;
        }
        let group = Group {
            bucket,
            prompt: self.by.prompt & lead.prompt,
            version: self.by.version & series.version,
            environment: self.by.environment & series.environment,
            provider: self.by.provider & provider,
            model: self.by.model & model,
        };
        let recent = &mut self.recent[group.recent()];
        if let Some((_, place)) = recent.filter(|(last, _)| *last == group) {
            return Some(place);
        }
        let next = sums.len();
        let place = *self.places.entry(group).or_insert(next);
        if place == next {
            sums.push(Sums::default());
        }
        *recent = Some((group, place));
        Some(place)
    }
}

impl<'a> Tally<'a> {
    /// An empty answer to `query`, to be read as `plan` says.
    ///
    /// # Errors
    /// None where the labels of the filter were made by [`Label::new`](crate::Label::new).
    pub fn new(query: &'a AggregateQuery, plan: &'a Plan) -> Result<Self> {
        let mut names = Names::default();
        let filter = &query.filter;
        let mut label = |label: &Option<crate::Label>| {
            label.as_ref().map(|label| names.label(label)).transpose()
        };
        let (environment, provider, model) =
            (label(&filter.environment)?, label(&filter.provider)?, label(&filter.model)?);
        let wanted = Wanted {
            prompt: filter.prompt.map(|prompt| names.prompt(prompt)),
            version: filter.version,
            environment,
            provider,
            model,
        };
        let mask = |by: Dimension| if query.group_by.contains(&by) { u32::MAX } else { 0 };
        let by = Group {
            bucket: 0,
            prompt: mask(Dimension::Prompt),
            version: mask(Dimension::Version),
            environment: mask(Dimension::Environment),
            provider: mask(Dimension::Provider),
            model: mask(Dimension::Model),
        };
        let rows = Rows { by, wanted, places: HashMap::default(), recent: [None; RECENT] };
        let none = Grouped { rows, sums: Vec::new() };
        Ok(Self {
            query,
            plan,
            recount: Recount::new(query),
            added: none.clone(),
            outside: Recount::of_any_moment(query),
            taken: none,
            names,
            bucket: query.bucket.map(BucketCursor::new),
            reading: Reading {
                cube: plan.cube(),
                rounded: plan.rounded,
                missing_before: plan.missing_before,
                ..Reading::default()
            },
        })
    }

    /// Adds a cell of the plan's cube, or takes it away: its width, where it starts, its lead, its sums,
    /// and its histograms where the plan [reads them](Plan::reads_durations).
    ///
    /// # Errors
    /// `Corrupt` if the bytes are no cell; it says what helps, where something does.
    pub fn cell(
        &mut self,
        width: BucketWidth,
        start: i64,
        lead: &[u8],
        sums: &[u8],
        durations: Option<&[u8]>,
    ) -> Result<()> {
        let Some(cube) = self.plan.cube() else { return Ok(()) };
        self.read_cell(cube, width, start, lead, sums, durations).map_err(|error| {
            if error.kind() != ErrorKind::Corrupt {
                return error;
            }
            let sentence = format!("{error}, in a cell of the cube {cube}");
            let pruned = self.plan.is_pruned(start);
            let helps = if pruned { "" } else { "; `doctor --rebuild` makes it anew" };
            Error::corrupt(format!("{sentence}{helps}"))
        })
    }

    fn read_cell(
        &mut self,
        cube: Cube,
        width: BucketWidth,
        start: i64,
        lead: &[u8],
        sums: &[u8],
        durations: Option<&[u8]>,
    ) -> Result<()> {
        let lead = read_lead(cube, lead, &mut self.names)?;
        let bucket = bucket_of(&mut self.bucket, start);
        let taken = self.plan.takes(width, start);
        let of = if taken { &mut self.taken } else { &mut self.added };
        self.reading.cells += 1;
        cell::add(cube, sums, durations, &mut self.names, &mut of.sums, |series, sums| {
            of.rows.place(bucket, lead, series, sums)
        })?;
        Ok(())
    }

    /// Adds those changes of a value that belong to the cells of the plan.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are no changes; it says that they are.
    pub fn changes(&mut self, bytes: &[u8]) -> Result<()> {
        self.read_changes(bytes).map_err(|error| {
            if error.kind() != ErrorKind::Corrupt {
                return error;
            }
            Error::corrupt(format!("{error}, in changes that have yet to be folded"))
        })
    }

    fn read_changes(&mut self, bytes: &[u8]) -> Result<()> {
        let Self { plan, added: Grouped { rows, sums }, names, bucket, reading, .. } = self;
        let uses = plan.cube().is_some_and(Cube::has_uses);
        reading.unfolded += change::read(bytes, names, |change| {
            let (provider, model) = match change.what {
                What::Use if !uses => return,
                What::Use => (0, 0),
                What::Call { provider, model, .. } | What::Recost { provider, model, .. } => {
                    (provider, model)
                }
            };
            if !plan.covers(change.at) {
                return;
            }
            let bucket = bucket_of(bucket, start_of(BucketWidth::QuarterHour, change.at));
            let lead = Lead { prompt: change.prompt, provider, model };
            let (version, environment) = (change.version, change.environment);
            let series = Series { version, environment, ..Series::default() };
            if let Some(place) = rows.place(bucket, lead, series, sums) {
                apply(&change.what, &mut sums[place]);
            }
        })?;
        Ok(())
    }

    /// Counts a usage, or takes it away where cells count it; its payload is not needed.
    pub fn usage(&mut self, usage: &Usage) {
        self.reading.raw_rows += 1;
        let counted = self.plan.covers(usage.created_at.as_micros());
        if counted { &mut self.outside } else { &mut self.recount }.usage(usage);
    }

    /// Counts an execution, or takes it away where cells count it; its payload is not needed.
    pub fn execution(&mut self, execution: &LlmExecution) {
        self.reading.raw_rows += 1;
        // No cell counts one that has not finished.
        let counted =
            execution.status.is_final() && self.plan.covers(execution.created_at.as_micros());
        if counted { &mut self.outside } else { &mut self.recount }.execution(execution);
    }

    /// The answer.
    ///
    /// # Errors
    /// The plan to read it by anew, where something would be taken away from a sum of tokens that
    /// stays at the largest number: what it would be is not known any more.
    pub fn finish(self) -> Result<Aggregate, Box<Plan>> {
        let Self { query, plan, mut recount, added, mut outside, taken, names, reading, .. } = self;
        taken.each(query, &names, |key, measures| outside.add(key, &measures));
        let mut known = true;
        added.each(query, &names, |key, mut measures| {
            if let Some(outside) = outside.of(&key) {
                known &= !measures.tokens.are_at_the_largest(&outside.tokens);
                measures.take(outside);
            }
            if !measures.is_nothing() {
                recount.add(key, &measures);
            }
        });
        if known {
            Ok(Aggregate { rows: recount.finish(), reading })
        } else {
            Err(Box::new(plan.adding(query)))
        }
    }
}

impl Grouped {
    /// Calls `visit` with the rows.
    fn each(
        self,
        query: &AggregateQuery,
        names: &Names,
        mut visit: impl FnMut(GroupKey, Measures),
    ) {
        let Self { rows, mut sums } = self;
        let by = rows.by;
        for (group, place) in rows.places {
            let label = |by: u32, number: u32| (by != 0).then(|| names.label_of(number).clone());
            let key = GroupKey {
                bucket: query.bucket.and(Timestamp::from_micros(group.bucket).ok()),
                prompt: (by.prompt != 0).then(|| names.prompt_of(group.prompt)),
                version: (by.version != 0).then_some(group.version),
                environment: label(by.environment, group.environment),
                provider: label(by.provider, group.provider),
                model: label(by.model, group.model),
                session: None,
                user: None,
            };
            let uses = !query.needs_execution();
            visit(key, std::mem::take(&mut sums[place]).into_measures(uses));
        }
    }
}

fn bucket_of(bucket: &mut Option<BucketCursor>, micros: i64) -> i64 {
    match (bucket, Timestamp::from_micros(micros)) {
        (Some(bucket), Ok(at)) => bucket.start_of(at).as_micros(),
        _ => 0,
    }
}
