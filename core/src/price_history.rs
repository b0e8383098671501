//! How prices change without history being lost: pure steps from the prices that are stored to the
//! rows that must be written.
//! Invariant: no row is deleted and none asks another amount than before; it is closed, or marked as
//! replaced, and others take its place. What held until now still holds for then.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::id::CostConfigId;
use crate::label::Label;
use crate::model_rule::Matcher;
use crate::price::{CostConfig, PriceOrigin};
use crate::time::Timestamp;

/// The price that says the same as `new` for the same models in the same range, if there is one.
pub(crate) fn same<'a>(stored: &'a [CostConfig], new: &CostConfig) -> Option<&'a CostConfig> {
    let line = new.line();
    stored.iter().find(|old| {
        old.replaced_at.is_none()
            && old.validity() == new.validity()
            && old.same_charges(new)
            && old.line() == line
    })
}

/// The rows to write so that `new` holds in all of its range. A price of its line that started
/// earlier is closed where it starts; one that started within its range is replaced; what of
/// either lies behind its end holds again from there.
pub(crate) fn set(stored: &[CostConfig], new: CostConfig, now: Timestamp) -> Vec<CostConfig> {
    let mut rows = Vec::new();
    let line = new.line();
    for old in stored.iter().filter(|old| old.replaced_at.is_none() && old.line() == line) {
        if !overlap(old, &new) {
            continue;
        }
        rows.push(give_way(old, new.valid_from, now));
        if new.valid_to.is_some() && ends_later(old.valid_to, new.valid_to) {
            let id = CostConfigId::new();
            rows.push(CostConfig { id, valid_from: new.valid_to, ..old.clone() });
        }
    }
    rows.push(new);
    rows
}

/// What bringing the prices of the library up to date takes.
#[derive(Debug, Default)]
pub(crate) struct Renewal {
    /// The rows to write.
    pub(crate) rows: Vec<CostConfig>,
    /// Prices that are new.
    pub(crate) added: u64,
    /// Prices that were open and end now, or at the date from which another holds.
    pub(crate) closed: u64,
    /// Prices that were to come, or that stand beside those of another name of their model.
    pub(crate) replaced: u64,
    /// Prices whose names of models changed, and nothing else.
    pub(crate) renamed: u64,
}

/// The rows to write so that the prices of the library are those of `fresh`.
///
/// A price that starts at a date which was not known here takes effect from that date on. One that
/// says something else without a new date does so from `now` on: what calls were priced with until
/// now is not rewritten. A model, or a tier of it, that `fresh` does not have keeps its prices; one that
/// it lists under another name keeps them under that name.
pub(crate) fn renew(stored: &[CostConfig], fresh: &[CostConfig], now: Timestamp) -> Renewal {
    let mut renewal = Renewal::default();
    let named = Names::new(fresh);
    let seeds = stored.iter().filter(|old| old.origin == PriceOrigin::Seed);
    // The rows of a model that is listed under another name now are the history of that name, if it
    // has none of its own.
    let has_rows: HashSet<ModelKey<'_>> =
        seeds.clone().map(|old| (&old.provider, &old.model)).collect();
    let mut known: BTreeMap<TierKey<'_>, Vec<&CostConfig>> = BTreeMap::new();
    let mut heirs: BTreeMap<ModelKey<'_>, &Label> = BTreeMap::new();
    for old in seeds {
        let mut key = (&old.provider, &old.model, old.service_tier.as_ref());
        if let Some(other) = named.other_name(old) {
            let heir = *heirs.entry((&old.provider, other)).or_insert(&old.model);
            if has_rows.contains(&(&old.provider, other)) || heir != &old.model {
                if old.replaced_at.is_none() {
                    renewal.rows.push(CostConfig { replaced_at: Some(now), ..old.clone() });
                    renewal.replaced += 1;
                }
                continue;
            }
            key.1 = other;
        }
        // What was replaced holds no more, but the model is no new one.
        let live = known.entry(key).or_default();
        live.extend(old.replaced_at.is_none().then_some(old));
    }
    let mut wanted: BTreeMap<TierKey<'_>, Vec<&CostConfig>> = BTreeMap::new();
    for new in fresh {
        let key = (&new.provider, &new.model, new.service_tier.as_ref());
        wanted.entry(key).or_default().push(new);
    }
    let ids: HashSet<CostConfigId> = stored.iter().map(|old| old.id).collect();
    for (key, new) in &wanted {
        renewal.line(known.get(key).map(Vec::as_slice), new, &ids, now);
    }
    // A tier that is no longer told of stays, for the same names as the others.
    for (key, old) in known.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
        if let Some(of_model) = named.models.get(&(key.0, key.1)) {
            let mut rows = BTreeMap::new();
            renewal.rename(old, of_model, &mut rows);
            renewal.rows.extend(rows.into_values());
        }
    }
    renewal
}

type ModelKey<'a> = (&'a Label, &'a Label);
type TierKey<'a> = (&'a Label, &'a Label, Option<&'a Label>);

/// Which models the prices of the library are for.
struct Names<'a> {
    models: BTreeMap<ModelKey<'a>, &'a CostConfig>,
}

impl<'a> Names<'a> {
    fn new(fresh: &'a [CostConfig]) -> Self {
        Self { models: fresh.iter().map(|of| ((&of.provider, &of.model), of)).collect() }
    }

    /// The name under which the model of a stored price is listed now, if that is another one.
    fn other_name(&self, old: &CostConfig) -> Option<&'a Label> {
        if self.models.contains_key(&(&old.provider, &old.model)) {
            return None;
        }
        let model = old.model.to_lowercase();
        let mut of_provider =
            self.models.iter().filter(|((provider, _), _)| **provider == old.provider);
        let found = of_provider.find(|(_, of)| Matcher::new(&of.rule).matches(&model));
        found.map(|((_, name), _)| *name)
    }
}

impl Renewal {
    /// Brings the prices of one model and tier up to date; `old` is `None` where there never were any.
    fn line(
        &mut self,
        old: Option<&[&CostConfig]>,
        new: &[&CostConfig],
        ids: &HashSet<CostConfigId>,
        now: Timestamp,
    ) {
        let change = old.map_or(Some(None), |old| first_change(old, new, now).map(Some));
        let old = old.unwrap_or_default();
        let mut rows: BTreeMap<CostConfigId, CostConfig> = BTreeMap::new();
        if let Some(from) = change {
            let as_before =
                |a: &CostConfig, b: &CostConfig| a.validity() == b.validity() && a.same_charges(b);
            let behind = |of: &CostConfig| ends_later(of.valid_to, from) && from.is_some();
            for row in old.iter().filter(|row| behind(row)) {
                if new.iter().any(|of| as_before(of, row)) {
                    continue;
                }
                let row = give_way(row, from, now);
                match row.replaced_at {
                    Some(_) => self.replaced += 1,
                    None => self.closed += 1,
                }
                rows.insert(row.id, row);
            }
            for row in new.iter().filter(|row| from.is_none() || behind(row)) {
                if old.iter().any(|of| as_before(of, row)) {
                    continue;
                }
                let valid_from = row.valid_from.max(from);
                let same = valid_from == row.valid_from && !ids.contains(&row.id);
                let id = if same { row.id } else { CostConfigId::new() };
                rows.insert(id, CostConfig { id, valid_from, ..(*row).clone() });
                self.added += 1;
            }
        }
        if let Some(of_model) = new.first() {
            self.rename(old, of_model, &mut rows);
        }
        self.rows.extend(rows.into_values());
    }

    /// Lets all of `old` be for the models that `new` is for: that is no part of their history.
    /// `rows` are those to write.
    fn rename(
        &mut self,
        old: &[&CostConfig],
        new: &CostConfig,
        rows: &mut BTreeMap<CostConfigId, CostConfig>,
    ) {
        for row in old.iter().filter(|row| (&row.model, &row.rule) != (&new.model, &new.rule)) {
            if !rows.contains_key(&row.id) {
                self.renamed += 1;
            }
            let row = rows.entry(row.id).or_insert_with(|| (*row).clone());
            (row.model, row.rule) = (new.model.clone(), new.rule.clone());
        }
    }
}

/// From when on `new` says something else than `old`, as far as it may: from a date of its own that
/// is later than the start of what holds now, or from `now`, or later.
fn first_change(old: &[&CostConfig], new: &[&CostConfig], now: Timestamp) -> Option<Timestamp> {
    let since = in_force(old, now).map_or(Some(now), |row| row.valid_from);
    let mut moments: BTreeSet<Timestamp> = new.iter().filter_map(|row| row.valid_from).collect();
    moments.retain(|at| since.is_none_or(|since| *at > since) && *at <= now);
    moments.insert(now);
    let bounds = old.iter().chain(new).flat_map(|row| [row.valid_from, row.valid_to]);
    moments.extend(bounds.flatten().filter(|at| *at > now));
    moments.into_iter().find(|at| match (in_force(old, *at), in_force(new, *at)) {
        (Some(old), Some(new)) => !old.same_charges(new),
        (None, None) => false,
        _ => true,
    })
}

fn in_force<'a>(rows: &[&'a CostConfig], at: Timestamp) -> Option<&'a CostConfig> {
    rows.iter().copied().find(|row| row.validity().contains(at))
}

/// `old` as it is once another price holds from `from` on: closed there, or replaced where it did
/// not start before.
fn give_way(old: &CostConfig, from: Option<Timestamp>, now: Timestamp) -> CostConfig {
    if old.valid_from < from {
        CostConfig { valid_to: from, ..old.clone() }
    } else {
        CostConfig { replaced_at: Some(now), ..old.clone() }
    }
}

fn overlap(a: &CostConfig, b: &CostConfig) -> bool {
    ends_later(a.valid_to, b.valid_from.or(Some(Timestamp::MIN)))
        && ends_later(b.valid_to, a.valid_from.or(Some(Timestamp::MIN)))
}

/// Whether an end (`None`: never) is later than a moment.
fn ends_later(end: Option<Timestamp>, moment: Option<Timestamp>) -> bool {
    match (end, moment) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(end), Some(moment)) => end > moment,
    }
}

#[cfg(test)]
mod tests;
