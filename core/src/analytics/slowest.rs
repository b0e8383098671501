//! The slowest executions, looked for where the histograms of cells say that they are.
//! Invariant: what is found is what a walk over all records finds, where none are stored meanwhile; cells
//! only say where not to look.

use std::cmp::Reverse;

use super::{Analytics, StatsQuery, question};
use crate::aggregate::Detail;
use crate::cube::Cube;
use crate::error::Result;
use crate::histogram::Histogram;
use crate::record::LlmExecution;
use crate::time::{Bucket, BucketWidth, TimeRange, Zone};

/// Stretches that are looked into one by one; where more have what is looked for, a walk is better.
const MOST_STRETCHES: usize = 32;

impl Analytics {
    /// The executions that took longest, the slowest first and of equals the newest, without payloads:
    /// what [`RecordStore::slowest_executions`](crate::RecordStore::slowest_executions) answers, but
    /// where a cube has what is filtered by, only quarters of an hour are walked that have some.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn slowest_executions(
        &self,
        query: &StatsQuery,
        limit: u32,
    ) -> Result<Vec<LlmExecution>> {
        if let Some((stretches, count)) = self.slow_stretches(query, limit).await? {
            let mut found = Vec::new();
            for stretch in stretches {
                found.extend(self.store.slowest_executions(&stretch, &query.filter, limit).await?);
            }
            found.sort_unstable_by_key(|one| Reverse((one.latency_ms, one.created_at, one.id)));
            found.truncate(limit as usize);
            // Fewer are there where some were pruned meanwhile.
            if found.len() as u64 == count {
                return Ok(found);
            }
        }
        self.store.slowest_executions(&query.range, &query.filter, limit).await
    }

    /// The quarters of an hour in which the slowest executions started, and how many these are; `None`
    /// where no cube says it, or there are too many.
    async fn slow_stretches(
        &self,
        query: &StatsQuery,
        limit: u32,
    ) -> Result<Option<(Vec<TimeRange>, u64)>> {
        // Cells count what was pruned, too.
        let horizon = self.store.raw_horizon().await?;
        let live = TimeRange { from: query.range.from.max(horizon), ..query.range };
        let (mut stretches, mut count) = (vec![live], 0);
        for width in [BucketWidth::Day, BucketWidth::Hour, BucketWidth::QuarterHour] {
            let bucket = Bucket { width, zone: Zone::UTC };
            let mut rows = Vec::new();
            for range in stretches {
                let query = StatsQuery { range, filter: query.filter.clone() };
                let question = question(&query, &[], Some(bucket), Detail::Full);
                if Cube::covering(&question).is_none() {
                    return Ok(None);
                }
                let [answer] = self.ask([question]).await?;
                rows.extend(answer.rows);
            }
            let mut all = Histogram::default();
            rows.iter().for_each(|row| all.merge(&row.measures.latency_ms));
            count = count.max(all.count().min(limit.into()));
            let least = all.bucket_of_the_highest(count);
            rows.retain(|row| row.measures.latency_ms.reaches(least));
            if rows.len() > MOST_STRETCHES {
                return Ok(None);
            }
            let within = |start| {
                let end = bucket.next(start);
                let to = live.to.map_or(end, |to| to.min(end));
                TimeRange { from: live.from.max(Some(start)), to: Some(to) }
            };
            stretches = rows.iter().filter_map(|row| row.key.bucket).map(within).collect();
        }
        Ok(Some((stretches, count)))
    }
}
