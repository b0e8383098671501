//! Taking in what records add up to that were pruned in another store, in memory.
//! Invariant: what is there already is read off an answer, as anybody could.

use std::collections::HashMap;

use super::State;
use crate::cube::Restoring;
use crate::error::Result;
use crate::pruned::PrunedSums;
use crate::store::Restored;
use crate::time::{TimeRange, Timestamp};

impl State {
    /// Takes in those of `sums` that are missing.
    pub(super) fn restore(&mut self, sums: &[PrunedSums]) -> Result<Restored> {
        let of = Restoring::new(sums)?.stretch();
        let (from, to) = (Timestamp::from_micros(of.from)?, Timestamp::from_micros(of.to).ok());
        let mut rows = Vec::new();
        for question in PrunedSums::questions(TimeRange { from: Some(from), to }) {
            rows.extend(self.aggregate(&question).rows);
        }
        let here = PrunedSums::from_rows(rows)?;
        let here: HashMap<_, _> = here.iter().map(|sums| (sums.key(), sums)).collect();
        let mut done = Restored::default();
        for sums in sums {
            match here.get(&sums.key()) {
                Some(stored) if *stored == sums => {}
                Some(_) => done.other += 1,
                None if self.horizon.is_none_or(|horizon| sums.quarter >= horizon) => {
                    done.unpruned += 1;
                }
                None => {
                    self.restored.push(sums.clone());
                    done.new += 1;
                }
            }
        }
        Ok(done)
    }
}
