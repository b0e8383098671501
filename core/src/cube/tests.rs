//! Cubes kept in a map, against the memory store: the same records, the same questions, the same answers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::MemoryStore;
use crate::aggregate::{Aggregate, AggregateQuery};
use crate::conformance::aggregate::arbitrary_query;
use crate::conformance::arbitrary::Arbitrary;
use crate::record::{LlmExecution, Record};
use crate::store::{CostRevision, Prune, RecordStore, Revised};

/// A store of cubes in memory: what a backend does, in the fewest words.
#[derive(Default)]
struct Cubes {
    records: Vec<Record>,
    horizon: Option<Timestamp>,
    changes: Vec<Vec<u8>>,
    cells: BTreeMap<CellKey, CellValues>,
}

impl Cubes {
    fn merge(&mut self, lot: Lot) {
        let mut touched = lot.finish();
        while let Some(key) = touched.next_key() {
            let merged = touched.merged(self.cells.get(&key)).unwrap();
            self.cells.insert(key, merged);
        }
    }

    fn fold(&mut self, values: usize) {
        let mut lot = Lot::new(&WIDTHS);
        let values = values.min(self.changes.len());
        for value in self.changes.drain(..values) {
            lot.add(&value).unwrap();
        }
        self.merge(lot);
    }

    fn live(&self, record: &Record) -> bool {
        self.horizon.is_none_or(|horizon| record.created_at() >= horizon)
    }

    fn answer(&self, query: &AggregateQuery) -> Aggregate {
        let moments = self.cells.keys().map(|key| Timestamp::from_micros(key.start).unwrap());
        let moments = moments.chain(self.records.iter().map(Record::created_at));
        let mut extent = moments.clone().min().zip(moments.max());
        self.changes.iter().for_each(|value| widen_extent(&mut extent, value).unwrap());
        let mut plan = Plan::new(query, self.horizon, extent);
        loop {
            let mut tally = Tally::new(query, &plan).unwrap();
            for (width, stretch) in plan.cells() {
                for (key, values) in &self.cells {
                    if Some(key.cube) == plan.cube()
                        && key.width == width
                        && (stretch.from..stretch.to).contains(&key.start)
                        && plan.lead().is_none_or(|lead| lead == key.lead)
                    {
                        let durations = plan.reads_durations().then_some(&*values.durations);
                        tally.cell(width, key.start, &key.lead, &values.sums, durations).unwrap();
                    }
                }
            }
            if plan.reads_changes() {
                self.changes.iter().for_each(|value| tally.changes(value).unwrap());
            }
            for record in self.records.iter().filter(|record| self.live(record)) {
                let at = record.created_at().as_micros();
                let within = |stretch: &Stretch| (stretch.from..stretch.to).contains(&at);
                let read = plan.records().iter().any(within);
                match record {
                    Record::Usage(usage) if read => tally.usage(usage),
                    Record::Execution(call) if read => tally.execution(call),
                    Record::Execution(call) if !call.status.is_final() => {
                        plan.pending().filter(within).for_each(|_| tally.execution(call));
                    }
                    _ => {}
                }
            }
            match tally.finish() {
                Ok(answer) => return answer,
                Err(anew) => plan = *anew,
            }
        }
    }
}

/// The same records in both.
struct Both {
    cubes: Cubes,
    oracle: MemoryStore,
    random: Arbitrary,
}

fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

impl Both {
    fn new(seed: u64, hours: i64) -> Self {
        let random = Arbitrary::new(seed, hours * 3_600);
        Self { cubes: Cubes::default(), oracle: MemoryStore::new(), random }
    }

    fn append(&mut self, records: &[Record]) {
        let mut changes = Changes::default();
        for record in records {
            if !self.cubes.live(record) {
                continue;
            }
            let appended = now(self.oracle.append(std::slice::from_ref(record))).unwrap();
            if appended.stored == 0 {
                continue;
            }
            match record {
                Record::Usage(usage) => changes.usage(usage),
                Record::Execution(call) => {
                    changes.execution(call);
                    let id = call.id;
                    self.cubes
                        .records
                        .retain(|old| !matches!(old, Record::Execution(old) if old.id == id));
                }
            }
            self.cubes.records.push(record.clone());
        }
        if !changes.is_empty() {
            self.cubes.changes.push(changes.encode());
        }
    }

    fn finish_a_call(&mut self) {
        let pending =
            |record: &&Record| matches!(record, Record::Execution(call) if !call.status.is_final());
        if let Some(Record::Execution(call)) = self.cubes.records.iter().find(pending).cloned() {
            let finished = self.random.finished(&call);
            self.append(&[finished.into()]);
        }
    }

    fn recost(&mut self) {
        let place = self.random.rng.usize(..self.cubes.records.len().max(1));
        let new = self.random.cost();
        let Some(Record::Execution(call)) = self.cubes.records.get_mut(place) else { return };
        let Some(expected) = call.cost else { return };
        let (id, at) = (call.id, call.created_at);
        let revision = CostRevision { id, expected, past: None, new, priced_model: None, at };
        let revised = now(self.oracle.revise_costs(&[revision])).unwrap();
        if revised == [Revised::Changed] {
            let mut changes = Changes::default();
            changes.recost(call, &new);
            call.cost = Some(new);
            self.cubes.changes.push(changes.encode());
        }
    }

    fn prune(&mut self) {
        let before = self.random.moment();
        let limit = u32::MAX;
        now(self.oracle.prune(&Prune { payloads_before: None, raw_before: Some(before), limit }))
            .unwrap();
        self.cubes.horizon = now(self.oracle.raw_horizon()).unwrap();
        let horizon = self.cubes.horizon;
        self.cubes.records.retain(|record| Some(record.created_at()) >= horizon);
    }

    fn compare(&mut self) {
        let query = arbitrary_query(&mut self.random);
        let expected = now(self.oracle.aggregate(&query)).unwrap();
        let found = self.cubes.answer(&query);
        assert_eq!(found.rows, expected.rows, "{query:#?}");
        assert_eq!(found.reading.rounded, expected.reading.rounded, "{query:#?}");
        assert_eq!(found.reading.missing_before, expected.reading.missing_before, "{query:#?}");
    }
}

#[test]
fn a_series_of_more_buckets_than_are_told_apart_is_right() {
    for seed in 0..3 {
        let mut both = Both::new(seed, 14_000);
        for _ in 0..6 {
            let records = (0..20).flat_map(|_| both.random.records()).collect::<Vec<_>>();
            both.append(&records);
            both.cubes.fold(20);
        }
        both.prune();
        for width in [BucketWidth::QuarterHour, BucketWidth::Hour] {
            for zone in ["UTC", "Europe/Berlin", "Asia/Kathmandu"] {
                let bucket = Some(crate::Bucket { width, zone: zone.parse().unwrap() });
                let query = AggregateQuery { bucket, ..AggregateQuery::default() };
                let expected = now(both.oracle.aggregate(&query)).unwrap();
                assert_eq!(both.cubes.answer(&query).rows, expected.rows, "{width} {zone}");
            }
        }
    }
}

#[test]
fn an_end_costs_the_records_between_it_and_the_nearer_quarter() {
    let minutes = |from: i64, to: i64| Stretch { from: from * 60_000_000, to: to * 60_000_000 };
    let hours =
        |zone: &str| Some(crate::Bucket { width: BucketWidth::Hour, zone: zone.parse().unwrap() });
    let cases = [
        // Taken away from a quarter, added to one.
        (minutes(7, 68), None, vec![minutes(0, 7), minutes(68, 75)], vec![minutes(0, 75)]),
        (minutes(8, 67), None, vec![minutes(8, 15), minutes(60, 67)], vec![minutes(15, 60)]),
        // Within a quarter or around a boundary, whatever is less.
        (minutes(5, 9), None, vec![minutes(5, 9)], vec![]),
        (minutes(2, 14), None, vec![minutes(0, 2), minutes(14, 15)], vec![minutes(0, 15)]),
        (minutes(14, 16), None, vec![minutes(14, 16)], vec![]),
        // A quarter that another bucket shares is not read for either.
        (
            minutes(10, 63),
            hours("+00:07"),
            vec![minutes(10, 15), minutes(45, 63)],
            vec![minutes(15, 45)],
        ),
        (minutes(3, 59), hours("UTC"), vec![minutes(0, 3), minutes(59, 60)], vec![minutes(0, 60)]),
    ];
    for (range, bucket, records, covered) in cases {
        let moment = |micros| Some(Timestamp::from_micros(micros).unwrap());
        let range = crate::TimeRange { from: moment(range.from), to: moment(range.to) };
        let query = AggregateQuery { range, bucket, ..AggregateQuery::default() };
        let plan = Plan::new(&query, None, None);
        assert_eq!(plan.records(), records, "{range:?}");
        assert_eq!(plan.pending().collect::<Vec<_>>(), covered, "{range:?}");
    }
}

#[test]
fn nothing_is_taken_away_from_a_sum_of_tokens_at_the_largest_number() {
    let mut both = Both::new(5, 1);
    let most = crate::TokenCounts { input: crate::TokenCounts::MAX, ..Default::default() };
    let calls = [60, 600].map(|second| {
        let call = crate::conformance::arbitrary::call(crate::testkit::at(second)).1;
        LlmExecution { tokens: Some(most.check().unwrap()), ..call }
    });
    both.append(&calls.map(Record::from));
    both.cubes.fold(2);
    let from = Some(crate::testkit::at(61));
    let range = crate::TimeRange { from, to: None };
    let query = AggregateQuery { range, ..AggregateQuery::default() };
    let input = |both: &Both| both.cubes.answer(&query).rows[0].measures.tokens.input;
    assert_eq!(input(&both), most.input);
    // What would be left of the sum is not known; the record inside of the range still is.
    for _ in 0..25 {
        for (key, values) in &mut both.cubes.cells {
            let mut twice = Lot::new(&[key.width]);
            twice.add_cell(key, values).unwrap();
            *values = twice.finish().merged(Some(values)).unwrap();
        }
    }
    assert_eq!(input(&both), most.input);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn cells_changes_and_records_answer_what_the_memory_store_does(seed in any::<u64>(), hours in prop_oneof![1_i64..6, 20_i64..200, 1_000_i64..9_000]) {
        let mut both = Both::new(seed, hours);
        for _ in 0..60 {
            match both.random.rng.u8(..16) {
                0..=6 => {
                    let records = (0..5).flat_map(|_| both.random.records()).collect::<Vec<_>>();
                    both.append(&records);
                }
                7..=9 => {
                    let values = both.random.rng.usize(..20);
                    both.cubes.fold(values);
                }
                10 | 11 => both.recost(),
                12 | 13 => both.finish_a_call(),
                14 if both.random.rng.u8(..2) == 0 => both.prune(),
                _ => both.compare(),
            }
        }
        for _ in 0..20 {
            both.compare();
        }
    }

    #[test]
    fn values_that_were_damaged_are_refused_or_read_as_others(
        seed in any::<u64>(),
        place in any::<usize>(),
        byte in any::<u8>(),
    ) {
        let mut both = Both::new(seed, 20);
        let records = (0..10).flat_map(|_| both.random.records()).collect::<Vec<_>>();
        both.append(&records);
        let damage = |value: &mut Vec<u8>| {
            let place = place % value.len().max(1);
            value[place..].iter_mut().take(1).for_each(|old| *old = byte);
        };
        let mut waiting = both.cubes.changes.clone();
        waiting.iter_mut().for_each(&damage);
        both.cubes.fold(10);
        let query = AggregateQuery::default();
        let plan = Plan::new(&query, None, None);
        let mut tally = Tally::new(&query, &plan).unwrap();
        waiting.iter().for_each(|value| drop(tally.changes(value)));
        for (key, values) in &both.cubes.cells {
            let CellValues { mut sums, mut durations } = values.clone();
            damage(&mut sums);
            damage(&mut durations);
            if key.cube == Cube::Totals {
                // Twice, so that sums which cannot be are added up, too.
                let _ = tally.cell(key.width, key.start, &key.lead, &sums, Some(&durations));
                let _ = tally.cell(key.width, key.start, &key.lead, &sums, Some(&durations));
            }
            let _ = Lot::new(&WIDTHS).add_cell(key, &CellValues { sums, durations });
        }
        let answer = tally.finish().unwrap();
        let _ = answer.rows[0].measures.executions();
    }

    #[test]
    fn bytes_that_are_no_cell_or_changes_are_refused(bytes in any::<Vec<u8>>()) {
        let _ = Lot::new(&WIDTHS).add(&bytes);
        let query = AggregateQuery::default();
        let plan = Plan::new(&query, None, None);
        let mut tally = Tally::new(&query, &plan).unwrap();
        let _ = tally.changes(&bytes);
        let _ = tally.cell(BucketWidth::Day, 0, &[], &bytes, Some(&bytes));
        let with_form: Vec<u8> = std::iter::once(1).chain(bytes).collect();
        let _ = Lot::new(&WIDTHS).add(&with_form);
        let _ = tally.cell(BucketWidth::Day, 0, &[], &with_form, Some(&with_form));
    }
}
