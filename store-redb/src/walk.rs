//! Walking the records of a stretch of time in order: along the rows, or along the narrowest index
//! that a filter allows. What the index does not say is judged by the filter, on the rows.

use prompt_engine_core::{Filter, Order, Status};
use redb::{AccessGuard, Range, ReadOnlyTable, ReadTransaction};

use crate::error::{Fault, Outcome};
use crate::layout::{Entry, Id, Kind, RowKey, Stretch, row_key_in};
use crate::terms::{Term, TermReader};

/// A record on the way: its row key and its row.
pub(crate) type Step = (RowKey, AccessGuard<'static, &'static [u8]>);

/// Where a walk goes along.
pub(crate) enum Way {
    /// The rows themselves.
    Rows,
    /// The index keys of each of these prefixes, no two of which name a record twice.
    Index(Vec<Vec<u8>>),
}

/// The way of the executions that `filter` can match.
pub(crate) fn way_of_executions(
    filter: &Filter,
    usage: Option<Id>,
    terms: &TermReader<'_>,
) -> Outcome<Way> {
    let one = |entry: Entry<'_>| Ok(Way::Index(vec![entry.prefix()]));
    if let Some(id) = usage {
        return one(Entry::Usage(id));
    }
    if let Some(session) = &filter.session {
        return one(Entry::Session(session));
    }
    if let Some(user) = &filter.user {
        return one(Entry::User(user));
    }
    if !filter.statuses.is_empty() && !filter.statuses.contains(&Status::Success) {
        let mut codes: Vec<u8> = filter.statuses.iter().map(|status| status.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        return Ok(Way::Index(codes.iter().map(|code| Entry::Status(*code).prefix()).collect()));
    }
    if let Some(model) = &filter.model {
        let key = terms.key(&Term::Model(model.clone()))?;
        return Ok(Way::Index(key.map(|key| Entry::Model(key).prefix()).into_iter().collect()));
    }
    way_of_prompt(filter, terms)
}

/// The way of the usages that `filter` can match.
pub(crate) fn way_of_usages(filter: &Filter, terms: &TermReader<'_>) -> Outcome<Way> {
    if let Some(session) = &filter.session {
        return Ok(Way::Index(vec![Entry::Session(session).prefix()]));
    }
    if let Some(user) = &filter.user {
        return Ok(Way::Index(vec![Entry::User(user).prefix()]));
    }
    way_of_prompt(filter, terms)
}

fn way_of_prompt(filter: &Filter, terms: &TermReader<'_>) -> Outcome<Way> {
    let Some(prompt) = filter.prompt else { return Ok(Way::Rows) };
    // No record can have a prompt that no term names.
    let key = terms.key(&Term::Prompt(prompt))?;
    Ok(Way::Index(key.map(|key| Entry::Prompt(key).prefix()).into_iter().collect()))
}

/// The records of `kind` in `stretch`, in `order`, along `way`.
pub(crate) struct Walk {
    rows: ReadOnlyTable<RowKey, &'static [u8]>,
    order: Order,
    legs: Vec<Leg>,
}

/// One sorted sequence of row keys.
enum Leg {
    Rows(Range<'static, RowKey, &'static [u8]>),
    /// The row key that comes next, taken out to be compared with those of other legs.
    Index(Option<RowKey>, Range<'static, &'static [u8], ()>),
}

impl Walk {
    pub(crate) fn new(
        txn: &ReadTransaction,
        kind: &Kind,
        stretch: &Stretch,
        order: Order,
        way: Way,
    ) -> Outcome<Self> {
        let rows = txn.open_table(kind.rows)?;
        let mut legs = Vec::new();
        match way {
            _ if stretch.is_empty() => {}
            Way::Rows => legs.push(Leg::Rows(rows.range::<RowKey>((stretch.from, stretch.to))?)),
            Way::Index(prefixes) => {
                let index = txn.open_table(kind.index)?;
                for prefix in prefixes {
                    let (from, to) = stretch.of_index(&prefix);
                    let keys = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
                    let mut range = index.range::<&[u8]>(keys)?;
                    let next = next_place(&mut range, order)?;
                    legs.push(Leg::Index(next, range));
                }
            }
        }
        Ok(Self { rows, order, legs })
    }

    /// The next record; `None` at the end.
    pub(crate) fn next(&mut self) -> Outcome<Option<Step>> {
        if let [Leg::Rows(range)] = &mut self.legs[..] {
            let step = match self.order {
                Order::OldestFirst => range.next(),
                Order::NewestFirst => range.next_back(),
            };
            return Ok(step.transpose()?.map(|(row_key, row)| (row_key.value(), row)));
        }
        let mut nearest: Option<(RowKey, usize)> = None;
        for (number, leg) in self.legs.iter().enumerate() {
            if let Leg::Index(Some(row_key), _) = leg
                && nearest.is_none_or(|(best, _)| self.order.is_behind(&best, row_key))
            {
                nearest = Some((*row_key, number));
            }
        }
        let Some((row_key, number)) = nearest else { return Ok(None) };
        if let Leg::Index(next, range) = &mut self.legs[number] {
            *next = next_place(range, self.order)?;
        }
        let row = self.rows.get(row_key)?;
        let row = row.ok_or_else(|| Fault::Row("an index names no row".to_owned()))?;
        Ok(Some((row_key, row)))
    }
}

fn next_place(
    range: &mut Range<'static, &'static [u8], ()>,
    order: Order,
) -> Outcome<Option<RowKey>> {
    let key = match order {
        Order::OldestFirst => range.next(),
        Order::NewestFirst => range.next_back(),
    };
    key.transpose()?.map(|(key, _)| row_key_in(key.value())).transpose()
}
