//! What a cell adds up to, and the columns that it is written in.
//! Invariant: sums are added and subtracted, so the order in which changes come does not matter.

use crate::aggregate::{Measures, TokenSums};
use crate::bytes::{Reader, Writer};
use crate::error::Result;
use crate::histogram::{Buckets, Histogram, bucket_of};
use crate::status::{ErrorCategory, Status};

/// Columns that may go down again wrap, so that a part of a sum may be less than nothing.
pub(super) const USES: usize = 0;
/// Those of the final statuses: at their code, 1 to 4.
const STATUSES: usize = 0;
pub(super) const PRICED: usize = 5;
pub(super) const UNPRICED: usize = 6;
const LATENCIES: usize = 7;
const FIRST_TOKENS: usize = 8;
/// How many reported tokens, and the sums of the eight kinds.
const TOKENS: usize = 9;
/// Those of the error categories, at their code behind this: the last, since they may become more.
const ERRORS: usize = 18;
pub(super) const COLUMNS: usize = ERRORS + ErrorCategory::ALL.len();

/// What some records add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(super) counts: [u64; COLUMNS],
    pub(super) cost_pico: i128,
    latency_ms: u128,
    first_token_ms: u128,
    latencies: Buckets,
    first_tokens: Buckets,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            counts: [0; COLUMNS],
            cost_pico: 0,
            latency_ms: 0,
            first_token_ms: 0,
            latencies: Buckets::default(),
            first_tokens: Buckets::default(),
        }
    }
}

/// A finished execution, as far as cells keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) status: Status,
    pub(crate) error: Option<ErrorCategory>,
    pub(crate) tokens: Option<[u64; 8]>,
    pub(crate) cost: Option<i128>,
    pub(crate) latency_ms: Option<u64>,
    pub(crate) first_token_ms: Option<u64>,
}

impl Sums {
    pub(super) fn add_use(&mut self) {
        self.add_count(USES, 1);
    }

    pub(super) fn add_call(&mut self, call: &Finished) {
        self.add_count(STATUSES + usize::from(call.status.code()), 1);
        if let Some(category) = call.error {
            self.add_count(ERRORS + usize::from(category.code()), 1);
        }
        if let Some(tokens) = &call.tokens {
            self.add_count(TOKENS, 1);
            for (column, count) in (TOKENS + 1..).zip(tokens) {
                self.add_count(column, *count);
            }
        }
        self.add_cost(call.cost);
        if let Some(ms) = call.latency_ms {
            self.add_count(LATENCIES, 1);
            self.latency_ms = self.latency_ms.saturating_add(ms.into());
            self.latencies.add(bucket_of(ms), 1);
        }
        if let Some(ms) = call.first_token_ms {
            self.add_count(FIRST_TOKENS, 1);
            self.first_token_ms = self.first_token_ms.saturating_add(ms.into());
            self.first_tokens.add(bucket_of(ms), 1);
        }
    }

    pub(super) fn add_cost(&mut self, cost: Option<i128>) {
        match cost {
            Some(pico) => {
                self.cost_pico = self.cost_pico.saturating_add(pico);
                self.add_count(PRICED, 1);
            }
            None => self.add_count(UNPRICED, 1),
        }
    }

    pub(super) fn take_cost(&mut self, cost: Option<i128>) {
        self.cost_pico = self.cost_pico.saturating_sub(cost.unwrap_or(0));
        let column = if cost.is_some() { PRICED } else { UNPRICED };
        self.counts[column] = self.counts[column].wrapping_sub(1);
    }

    pub(super) fn add_count(&mut self, column: usize, count: u64) {
        let sum = &mut self.counts[column];
        // Tokens stay at the largest number, as they do in a recount. Calls never become so many.
        *sum = if column > TOKENS && column < ERRORS {
            sum.saturating_add(count)
        } else {
            sum.wrapping_add(count)
        };
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (column, count) in other.counts.iter().enumerate() {
            self.add_count(column, *count);
        }
        self.cost_pico = self.cost_pico.saturating_add(other.cost_pico);
        self.latency_ms = self.latency_ms.saturating_add(other.latency_ms);
        self.first_token_ms = self.first_token_ms.saturating_add(other.first_token_ms);
        self.latencies.merge(&other.latencies);
        self.first_tokens.merge(&other.first_tokens);
    }

    /// The sums that such measures are.
    pub(super) fn of(measures: &Measures) -> Self {
        let Measures { uses, by_status, by_error, tokens, cost_pico, priced, unpriced, .. } =
            measures;
        let (latencies, first_tokens) = (&measures.latency_ms, &measures.time_to_first_token_ms);
        let mut sums = Self {
            cost_pico: *cost_pico,
            latency_ms: latencies.sum(),
            first_token_ms: first_tokens.sum(),
            latencies: latencies.buckets().clone(),
            first_tokens: first_tokens.buckets().clone(),
            ..Self::default()
        };
        for status in Status::ALL.iter().filter(|status| status.is_final()) {
            let code = usize::from(status.code());
            sums.counts[STATUSES + code] = by_status[code];
        }
        sums.counts[USES] = uses.unwrap_or(0);
        (sums.counts[PRICED], sums.counts[UNPRICED]) = (*priced, *unpriced);
        (sums.counts[LATENCIES], sums.counts[FIRST_TOKENS]) =
            (latencies.count(), first_tokens.count());
        sums.counts[TOKENS..ERRORS].copy_from_slice(&tokens.to_array());
        sums.counts[ERRORS..].copy_from_slice(by_error);
        sums
    }

    /// The same as measures; `uses` where they are counted.
    pub(super) fn into_measures(self, uses: bool) -> Measures {
        let Self { counts, cost_pico, .. } = self;
        let mut measures = Measures {
            uses: uses.then_some(counts[USES]),
            tokens: TokenSums::from_array(&counts[TOKENS..ERRORS]),
            cost_pico,
            priced: counts[PRICED],
            unpriced: counts[UNPRICED],
            latency_ms: Histogram::from_parts(self.latencies, counts[LATENCIES], self.latency_ms),
            time_to_first_token_ms: Histogram::from_parts(
                self.first_tokens,
                counts[FIRST_TOKENS],
                self.first_token_ms,
            ),
            ..Measures::default()
        };
        for status in Status::ALL.iter().filter(|status| status.is_final()) {
            let code = usize::from(status.code());
            measures.by_status[code] = counts[STATUSES + code];
        }
        measures.by_error.copy_from_slice(&counts[ERRORS..]);
        measures
    }
}

/// Columns of sums wider than a count.
const WIDE: usize = 3;

/// Writes the columns of many sums, those that are nothing in all of them left out.
pub(super) fn write_columns(sums: &[Sums], to: &mut Writer) {
    let used = |column: usize| sums.iter().any(|sums| sums.counts[column] != 0);
    let mut mask = 0_u64;
    mask |= u64::from(sums.iter().any(|sums| sums.cost_pico != 0));
    mask |= u64::from(sums.iter().any(|sums| sums.latency_ms != 0)) << 1;
    mask |= u64::from(sums.iter().any(|sums| sums.first_token_ms != 0)) << 2;
    for column in (0..COLUMNS).filter(|column| used(*column)) {
        mask |= 1 << (WIDE + column);
    }
    to.number(mask);
    if mask & 1 != 0 {
        sums.iter().for_each(|sums| to.signed_wide(sums.cost_pico));
    }
    if mask & 2 != 0 {
        sums.iter().for_each(|sums| to.wide(sums.latency_ms));
    }
    if mask & 4 != 0 {
        sums.iter().for_each(|sums| to.wide(sums.first_token_ms));
    }
    for column in (0..COLUMNS).filter(|column| mask & (1 << (WIDE + column)) != 0) {
        sums.iter().for_each(|sums| to.number(sums.counts[column]));
    }
}

/// Adds the columns of as many sums as there are `targets`, each to the one of `sums` that its target
/// names; those without a target are skipped.
pub(super) fn add_columns(
    from: &mut Reader<'_>,
    targets: &[Option<usize>],
    sums: &mut [Sums],
) -> Result<()> {
    let mask = from.number()?;
    if mask >> (WIDE + COLUMNS) != 0 {
        return Err(crate::Error::corrupt("a cell has columns that are not known"));
    }
    if mask & 1 != 0 {
        for target in targets {
            let pico = from.signed_wide()?;
            if let Some(target) = target {
                sums[*target].cost_pico = sums[*target].cost_pico.saturating_add(pico);
            }
        }
    }
    if mask & 2 != 0 {
        for target in targets {
            let ms = from.wide()?;
            if let Some(target) = target {
                sums[*target].latency_ms = sums[*target].latency_ms.saturating_add(ms);
            }
        }
    }
    if mask & 4 != 0 {
        for target in targets {
            let ms = from.wide()?;
            if let Some(target) = target {
                sums[*target].first_token_ms = sums[*target].first_token_ms.saturating_add(ms);
            }
        }
    }
    for column in (0..COLUMNS).filter(|column| mask & (1 << (WIDE + column)) != 0) {
        for target in targets {
            let count = from.number()?;
            if let Some(target) = target {
                sums[*target].add_count(column, count);
            }
        }
    }
    Ok(())
}

/// Writes the histograms of many sums.
pub(super) fn write_durations(sums: &[Sums], to: &mut Writer) {
    to.number(sums.len() as u64);
    for sums in sums {
        write_buckets(&sums.latencies, to);
        write_buckets(&sums.first_tokens, to);
    }
}

fn write_buckets(buckets: &Buckets, to: &mut Writer) {
    to.number(buckets.iter().count() as u64);
    let mut last = 0;
    for (bucket, times) in buckets.iter() {
        to.number(u64::from(bucket - last));
        to.number(times);
        last = bucket;
    }
}

/// Adds histograms as [`add_columns`] adds columns.
pub(super) fn add_durations(
    from: &mut Reader<'_>,
    targets: &[Option<usize>],
    sums: &mut [Sums],
) -> Result<()> {
    let count = from.count()?;
    let targets = targets
        .get(..count)
        .ok_or_else(|| crate::Error::corrupt("a cell has more histograms than series"))?;
    for target in targets {
        match target {
            Some(target) => {
                read_buckets(from, |bucket, times| sums[*target].latencies.add(bucket, times))?;
                read_buckets(from, |bucket, times| sums[*target].first_tokens.add(bucket, times))?;
            }
            None => {
                read_buckets(from, |_, _| {})?;
                read_buckets(from, |_, _| {})?;
            }
        }
    }
    Ok(())
}

fn read_buckets(from: &mut Reader<'_>, mut add: impl FnMut(u16, u64)) -> Result<()> {
    let mut bucket = 0_u64;
    for _ in 0..from.count()? {
        bucket = bucket.saturating_add(from.number()?);
        match u16::try_from(bucket) {
            Ok(bucket) if bucket <= Buckets::LAST => add(bucket, from.number()?),
            _ => return Err(crate::Error::corrupt(format!("{bucket} is no bucket"))),
        }
    }
    Ok(())
}
