//! Taking in what records add up to that were pruned in another store, in memory.
//! Invariant: what is there already is read off an answer, as anybody could.

use std::collections::HashMap;

use super::State;
use crate::cube::Restoring;
use crate::error::Result;
use crate::pruned::PrunedSums;
use crate::refusal;
use crate::time::{TimeRange, Timestamp};

impl State {
    /// Takes in `sums`; answers how many are new.
    pub(super) fn restore(&mut self, sums: &[PrunedSums]) -> Result<u64> {
        let of = Restoring::new(sums)?.stretch();
        let (from, to) = (Timestamp::from_micros(of.from)?, Timestamp::from_micros(of.to).ok());
        let mut rows = Vec::new();
        for question in PrunedSums::questions(TimeRange { from: Some(from), to }) {
            rows.extend(self.aggregate(&question).rows);
        }
        let here = PrunedSums::from_rows(rows)?;
        let here: HashMap<_, _> = here.iter().map(|sums| (sums.key(), sums)).collect();
        let mut new = Vec::new();
        for sums in sums {
            match here.get(&sums.key()) {
                Some(stored) if *stored == sums => {}
                Some(_) => return Err(refusal::other_sums(sums)),
                None if self.horizon.is_none_or(|horizon| sums.quarter >= horizon) => {
                    return Err(refusal::sums_not_before_horizon(sums, self.horizon));
                }
                None => new.push(sums.clone()),
            }
        }
        self.restored.extend_from_slice(&new);
        Ok(new.len() as u64)
    }
}
