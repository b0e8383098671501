//! Changes of prices: single cases by hand, and any timelines against what must hold of them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::model_rule::ModelRule;
use crate::rates::Rates;

fn at(day: i64) -> Timestamp {
    Timestamp::from_micros(day * 86_400_000_000).unwrap()
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

/// A price of a model, of `rate` dollars, from a day until a day.
fn price(origin: PriceOrigin, rate: u32, from: Option<i64>, to: Option<i64>) -> CostConfig {
    CostConfig {
        origin,
        rates: Rates { input: Some(Decimal::from(rate)), ..Rates::default() },
        valid_from: from.map(at),
        valid_to: to.map(at),
        ..CostConfig::new(label("openai"), label("m"))
    }
}

fn user(rate: u32, from: Option<i64>, to: Option<i64>) -> CostConfig {
    price(PriceOrigin::User, rate, from, to)
}

fn seed(rate: u32, from: Option<i64>, to: Option<i64>) -> CostConfig {
    price(PriceOrigin::Seed, rate, from, to)
}

/// What is stored once `rows` are written: those of a known id take its place.
fn written(stored: &[CostConfig], rows: Vec<CostConfig>) -> Vec<CostConfig> {
    let mut all: BTreeMap<CostConfigId, CostConfig> =
        stored.iter().map(|row| (row.id, row.clone())).collect();
    all.extend(rows.into_iter().map(|row| (row.id, row)));
    let all: Vec<CostConfig> = all.into_values().collect();
    all.iter().for_each(|row| row.validate().unwrap());
    CostConfig::check_overlaps(&all).unwrap();
    all
}

/// The rate that holds on each of the days, half-days too; `None` where none does.
fn timeline(rows: &[CostConfig]) -> Vec<Option<Decimal>> {
    let holds = |moment: Timestamp| {
        rows.iter()
            .find(|row| row.replaced_at.is_none() && row.validity().contains(moment))
            .and_then(|row| row.rates.input)
    };
    let half = std::time::Duration::from_secs(43_200);
    (-2..40).flat_map(|day| [holds(at(day)), holds(at(day).saturating_add(half))]).collect()
}

/// The place in a [`timeline`] of the start of a day.
fn place(day: i64) -> usize {
    usize::try_from((day + 2) * 2).unwrap()
}

fn rates(rows: &[CostConfig], days: &[i64]) -> Vec<Option<u32>> {
    let line = timeline(rows);
    days.iter().map(|day| line[place(*day)].map(|rate| u32::try_from(rate).unwrap())).collect()
}

#[test]
fn a_price_that_is_set_closes_the_one_before_it() {
    let first = user(1, None, None);
    let stored = written(&[], set(&[], first.clone(), at(20)));
    let stored = written(&stored, set(&stored, user(2, Some(10), None), at(20)));
    assert_eq!(rates(&stored, &[0, 9, 10, 30]), [Some(1), Some(1), Some(2), Some(2)]);
    let closed = stored.iter().find(|row| row.id == first.id).unwrap();
    assert_eq!((closed.valid_to, closed.replaced_at), (Some(at(10)), None));
}

#[test]
fn a_price_for_a_while_interrupts_the_others_and_keeps_what_it_replaces() {
    let stored = [user(1, None, Some(10)), user(2, Some(10), Some(20)), user(3, Some(20), None)];
    let all = written(&stored, set(&stored, user(9, Some(5), Some(25)), at(30)));
    assert_eq!(
        rates(&all, &[4, 5, 10, 20, 24, 25, 30]),
        [Some(1), Some(9), Some(9), Some(9), Some(9), Some(3), Some(3)]
    );
    let replaced: Vec<_> = all.iter().filter(|row| row.replaced_at == Some(at(30))).collect();
    assert_eq!(replaced.len(), 2);
    assert!(replaced.iter().all(|row| stored[1..].iter().any(|old| old.id == row.id)));
}

#[test]
fn a_price_that_is_set_takes_the_place_of_one_that_is_written_otherwise() {
    let old = user(1, None, None);
    let names = CostConfig::new(label("OpenAI"), label("M"));
    let tier = Some(label("Default"));
    let new = CostConfig { rates: user(2, None, None).rates, service_tier: tier, ..names };
    let rows = set(std::slice::from_ref(&old), new, at(3));
    assert_eq!((rows.len(), rows[0].id, rows[0].replaced_at), (2, old.id, Some(at(3))));
}

#[test]
fn a_price_that_is_set_leaves_other_lines_alone() {
    let other_tier = CostConfig { service_tier: Some(label("batch")), ..user(5, None, None) };
    let stored = [seed(1, None, None), other_tier];
    let rows = set(&stored, user(2, None, None), at(0));
    assert_eq!(rows.len(), 1);
}

#[test]
fn a_new_date_takes_effect_from_that_date_on() {
    let stored = [seed(1, None, None)];
    let fresh = [seed(1, None, Some(10)), seed(2, Some(10), None)];
    let done = renew(&stored, &fresh, at(20));
    assert_eq!((done.added, done.closed, done.replaced, done.renamed), (1, 1, 0, 0));
    let all = written(&stored, done.rows);
    assert_eq!(rates(&all, &[9, 10, 20]), [Some(1), Some(2), Some(2)]);
    // The row of the library keeps the id that it has everywhere.
    assert!(all.iter().any(|row| row.id == fresh[1].id));
}

#[test]
fn another_price_without_a_date_holds_from_now_on() {
    let stored = [seed(1, None, None)];
    let done = renew(&stored, &[seed(2, None, None)], at(20));
    assert_eq!((done.added, done.closed), (1, 1));
    let all = written(&stored, done.rows);
    assert_eq!(rates(&all, &[0, 19, 20, 30]), [Some(1), Some(1), Some(2), Some(2)]);
}

#[test]
fn a_price_to_come_is_replaced_before_it_does() {
    let stored = [seed(1, None, Some(30)), seed(2, Some(30), None)];
    let fresh = [seed(1, None, Some(35)), seed(3, Some(35), None)];
    let done = renew(&stored, &fresh, at(20));
    assert_eq!((done.added, done.replaced), (2, 1));
    let all = written(&stored, done.rows);
    assert_eq!(rates(&all, &[20, 29, 30, 34, 35]), [Some(1), Some(1), Some(1), Some(1), Some(3)]);
}

#[test]
fn what_the_user_set_and_what_the_library_no_longer_has_stay_as_they_are() {
    let stored = [user(7, None, None), CostConfig { model: label("gone"), ..seed(1, None, None) }];
    let done = renew(&stored, &[seed(2, None, None)], at(20));
    assert_eq!((done.added, done.rows.len()), (1, 1));
}

#[test]
fn a_model_that_is_listed_under_another_name_keeps_its_history_under_that_name() {
    let named = |model: &str, row: CostConfig| {
        let rule = ModelRule::Equals(label(model));
        CostConfig { model: label(model), rule, ..row }
    };
    let stored = [named("m-old", seed(1, None, None)), named("m-older", seed(5, None, None))];
    let rule = ModelRule::StartsWith(label("m"));
    let fresh = [CostConfig { rule: rule.clone(), ..seed(2, None, None) }];
    let done = renew(&stored, &fresh, at(20));
    // One of the two is the history; the other would stand beside it.
    assert_eq!((done.added, done.closed, done.replaced), (1, 1, 1));
    let all = written(&stored, done.rows);
    assert_eq!(rates(&all, &[0, 19, 20]), [Some(1), Some(1), Some(2)]);
    assert!(all.iter().filter(|row| row.replaced_at.is_none()).all(|row| row.rule == rule));
    assert!(renew(&all, &fresh, at(21)).rows.is_empty());
}

#[test]
fn a_tier_that_is_no_longer_told_of_stays_for_the_names_that_its_model_has() {
    let tier = Some(label("scale"));
    let stored = [seed(1, None, None), CostConfig { service_tier: tier, ..seed(3, None, None) }];
    let rule = ModelRule::StartsWith(label("m"));
    let fresh = [CostConfig { rule: rule.clone(), ..seed(1, None, None) }];
    let done = renew(&stored, &fresh, at(20));
    assert_eq!((done.renamed, done.added, done.closed, done.replaced), (2, 0, 0, 0));
    let all = written(&stored, done.rows);
    assert!(all.iter().all(|row| row.rule == rule));
    assert!(renew(&all, &fresh, at(21)).rows.is_empty());
}

#[test]
fn a_price_that_is_there_is_found() {
    let (one, two) = (user(1, None, Some(10)), user(2, Some(10), None));
    let stored = [one.clone(), two];
    assert_eq!(same(&stored, &user(1, None, Some(10))).map(|row| row.id), Some(one.id));
    assert_eq!(same(&stored, &user(1, None, None)), None);
    assert_eq!(same(&stored, &user(2, None, Some(10))), None);
}

#[test]
fn a_model_of_more_names_keeps_its_prices() {
    let stored = [seed(1, None, Some(10)), seed(2, Some(10), None)];
    let rule = ModelRule::StartsWith(label("m"));
    let fresh = stored.clone().map(|row| CostConfig { rule: rule.clone(), ..row });
    let done = renew(&stored, &fresh, at(20));
    assert_eq!((done.renamed, done.added, done.closed, done.replaced), (2, 0, 0, 0));
    let all = written(&stored, done.rows);
    assert!(all.iter().all(|row| row.rule == rule));
    assert_eq!(rates(&all, &[9, 10]), [Some(1), Some(2)]);
}

/// Prices of one line: at each of some days another begins, or none.
fn line(origin: PriceOrigin) -> impl Strategy<Value = Vec<CostConfig>> {
    let starts =
        prop::collection::btree_map(0_i64..36, prop::option::weighted(0.8, 1_u32..4), 0..5);
    (prop::option::weighted(0.7, 1_u32..4), starts).prop_map(move |(ever, starts)| {
        let starts: Vec<(Option<i64>, Option<u32>)> = std::iter::once((None, ever))
            .chain(starts.into_iter().map(|(day, rate)| (Some(day), rate)))
            .collect();
        let ends = starts[1..].iter().map(|(day, _)| *day).chain([None]);
        let rows = starts.iter().zip(ends);
        rows.filter_map(|((from, rate), to)| Some(price(origin, (*rate)?, *from, to))).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_load_makes_the_future_the_librarys_and_leaves_the_past(
        stored in line(PriceOrigin::Seed), fresh in line(PriceOrigin::Seed), now in 0_i64..36, later in 0_i64..4,
    ) {
        prop_assume!(!fresh.is_empty());
        let done = renew(&stored, &fresh, at(now));
        let all = written(&stored, done.rows);
        let (before, wanted, after) = (timeline(&stored), timeline(&fresh), timeline(&all));
        prop_assert_eq!(&after[place(now)..], &wanted[place(now)..]);
        // A price of the past changes only from a date of the library's that is later than the
        // start of what holds now; where nothing was stored the library has all of it.
        let since = stored.iter().find(|row| row.validity().contains(at(now)));
        let since = since.map_or(Some(at(now)), |row| row.valid_from);
        let mut dates = fresh.iter().filter_map(|row| row.valid_from);
        let known = dates.find(|date| since.is_none_or(|since| *date > since) && *date <= at(now));
        let until = known.unwrap_or(at(now)).as_micros() / 86_400_000_000;
        if !stored.is_empty() {
            prop_assert_eq!(&after[..place(until)], &before[..place(until)]);
        }
        // Nothing that was stored says anything else.
        for old in &stored {
            let kept = all.iter().find(|row| row.id == old.id).unwrap();
            prop_assert!(kept.same_charges(old) && kept.valid_from == old.valid_from);
        }
        prop_assert!(renew(&all, &fresh, at(now)).rows.is_empty());
        prop_assert!(renew(&all, &fresh, at(now + later)).rows.is_empty());
    }

    #[test]
    fn a_price_that_is_set_holds_in_its_range_and_nowhere_else(
        stored in line(PriceOrigin::User), from in prop::option::of(0_i64..36), days in prop::option::of(1_i64..20),
    ) {
        let to = days.map(|days| from.unwrap_or(0) + days);
        let new = user(9, from, to);
        let all = written(&stored, set(&stored, new.clone(), at(20)));
        let (before, after) = (timeline(&stored), timeline(&all));
        for (day, n) in (-2..40).zip((0..).step_by(2)) {
            let expected = if new.validity().contains(at(day)) { new.rates.input } else { before[n] };
            prop_assert_eq!(after[n], expected, "day {}", day);
        }
        for old in &stored {
            let kept = all.iter().find(|row| row.id == old.id).unwrap();
            prop_assert!(kept.same_charges(old) && kept.valid_from == old.valid_from);
        }
    }
}
