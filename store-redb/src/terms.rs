//! The dictionary: texts and ids that many rows share, each stored once and named by a small key.
//! Invariants: what is remembered here was read from, or written by, a committed transaction; keys
//! count from 1 without a gap, and the one process that has the file open gives them.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use prompt_engine_core::{CostConfigId, Label, PromptId};
use redb::{ReadTransaction, ReadableTable, Table};

use crate::error::{Fault, Outcome};
use crate::layout::{TERMS, VERSION};

/// A term, as records hold it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Term {
    Prompt(PromptId),
    Environment(Label),
    Provider(Label),
    Model(Label),
    Price(CostConfigId),
    ServiceTier(Label),
}

impl Term {
    /// Version, kind, and what is named.
    fn value(&self) -> Vec<u8> {
        let (kind, id);
        let bytes: &[u8] = match self {
            Self::Prompt(prompt) => {
                (kind, id) = (0, prompt.to_bytes());
                &id
            }
            Self::Price(price) => {
                (kind, id) = (4, price.to_bytes());
                &id
            }
            Self::Environment(label) => {
                kind = 1;
                label.as_bytes()
            }
            Self::Provider(label) => {
                kind = 2;
                label.as_bytes()
            }
            Self::Model(label) => {
                kind = 3;
                label.as_bytes()
            }
            Self::ServiceTier(label) => {
                kind = 5;
                label.as_bytes()
            }
        };
        [&[VERSION, kind], bytes].concat()
    }

    fn read(value: &[u8]) -> Outcome<Self> {
        let (kind, bytes) = match value {
            [VERSION, kind, bytes @ ..] => (*kind, bytes),
            [found, _, ..] => return Err(Fault::Version { found: *found, known: VERSION }),
            _ => return Err(Fault::Row("a term is too short".to_owned())),
        };
        let id =
            || <[u8; 16]>::try_from(bytes).map_err(|_| Fault::Row("a term is no id".to_owned()));
        let label = || {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| Fault::Row("a term is no UTF-8 text".to_owned()))?;
            Label::new(text).map_err(|error| Fault::Row(format!("a term: {error}")))
        };
        Ok(match kind {
            0 => Self::Prompt(PromptId::from_bytes(id()?)),
            1 => Self::Environment(label()?),
            2 => Self::Provider(label()?),
            3 => Self::Model(label()?),
            4 => Self::Price(CostConfigId::from_bytes(id()?)),
            5 => Self::ServiceTier(label()?),
            kind => return Err(Fault::Row(format!("{kind} is no kind of a term"))),
        })
    }
}

/// The terms of the file, as far as they are committed.
#[derive(Debug, Default)]
pub(crate) struct Terms(RwLock<Met>);

#[derive(Debug, Default)]
struct Met {
    keys: HashMap<Term, u32>,
    /// That of key 1 comes first.
    terms: Vec<Term>,
}

impl Terms {
    /// Reads all terms of the file anew.
    pub(crate) fn load(&self, txn: &ReadTransaction) -> Outcome<()> {
        let mut met = Met::default();
        for (expected, entry) in (1_u32..).zip(txn.open_table(TERMS)?.iter()?) {
            let (key, value) = entry?;
            if key.value() != expected {
                return Err(Fault::Row(format!("term {expected} is missing")));
            }
            let term = Term::read(value.value())?;
            met.keys.insert(term.clone(), expected);
            met.terms.push(term);
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = met;
        Ok(())
    }

    fn key(&self, term: &Term) -> Option<u32> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys.get(term).copied()
    }

    fn term(&self, key: u32) -> Option<Term> {
        let met = self.0.read().unwrap_or_else(PoisonError::into_inner);
        met.terms.get(usize::try_from(key.checked_sub(1)?).ok()?).cloned()
    }

    fn len(&self) -> u32 {
        let met = self.0.read().unwrap_or_else(PoisonError::into_inner);
        u32::try_from(met.terms.len()).unwrap_or(u32::MAX)
    }

    /// Remembers `new` terms, now that they are committed.
    pub(crate) fn remember(&self, new: NewTerms) {
        let mut met = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (term, key) in new.0 {
            met.keys.insert(term.clone(), key);
            met.terms.push(term);
        }
    }
}

/// Finds what a key names.
pub(crate) trait Lookup {
    fn term(&self, key: u32) -> Outcome<Term>;

    fn prompt(&self, key: u32) -> Outcome<PromptId> {
        match self.term(key)? {
            Term::Prompt(id) => Ok(id),
            _ => Err(Fault::Row(format!("term {key} is no prompt"))),
        }
    }

    fn price(&self, key: u32) -> Outcome<CostConfigId> {
        match self.term(key)? {
            Term::Price(id) => Ok(id),
            _ => Err(Fault::Row(format!("term {key} is no price"))),
        }
    }

    fn label(&self, key: u32) -> Outcome<Label> {
        match self.term(key)? {
            Term::Environment(label)
            | Term::Provider(label)
            | Term::Model(label)
            | Term::ServiceTier(label) => Ok(label),
            Term::Prompt(_) | Term::Price(_) => Err(Fault::Row(format!("term {key} is no text"))),
        }
    }
}

/// The terms of one write transaction.
pub(crate) struct TermWriter<'a, 't> {
    terms: &'a Terms,
    table: Table<'t, u32, &'static [u8]>,
    new: Vec<(Term, u32)>,
}

/// Terms that became known in a transaction that has yet to commit.
pub(crate) struct NewTerms(Vec<(Term, u32)>);

impl<'a, 't> TermWriter<'a, 't> {
    pub(crate) fn new(terms: &'a Terms, table: Table<'t, u32, &'static [u8]>) -> Self {
        Self { terms, table, new: Vec::new() }
    }

    /// The key of `term`, which is added if it is new.
    pub(crate) fn key(&mut self, term: Term) -> Outcome<u32> {
        if let Some(key) = self.terms.key(&term) {
            return Ok(key);
        }
        if let Some((_, key)) = self.new.iter().find(|(new, _)| *new == term) {
            return Ok(*key);
        }
        let before = u32::try_from(self.new.len()).unwrap_or(u32::MAX);
        let key = self.terms.len().saturating_add(before).saturating_add(1);
        self.table.insert(key, &*term.value())?;
        self.new.push((term, key));
        Ok(key)
    }

    /// What to hand to [`Terms::remember`] once the transaction is committed.
    pub(crate) fn finish(self) -> NewTerms {
        NewTerms(self.new)
    }
}

impl Lookup for TermWriter<'_, '_> {
    fn term(&self, key: u32) -> Outcome<Term> {
        if let Some(term) = self.terms.term(key) {
            return Ok(term);
        }
        let new = self.new.iter().find(|(_, new)| *new == key);
        new.map(|(term, _)| term.clone())
            .ok_or_else(|| Fault::Row(format!("term {key} is missing")))
    }
}

/// The terms of one read transaction.
#[derive(Clone, Copy)]
pub(crate) struct TermReader<'a> {
    terms: &'a Terms,
    txn: &'a ReadTransaction,
}

impl<'a> TermReader<'a> {
    pub(crate) fn new(terms: &'a Terms, txn: &'a ReadTransaction) -> Self {
        Self { terms, txn }
    }

    /// The key of `term`; `None` if no row can have it.
    pub(crate) fn key(&self, term: &Term) -> Outcome<Option<u32>> {
        // Counted before the look: what is remembered from here on is found in the table.
        let remembered = self.terms.len();
        if let Some(key) = self.terms.key(term) {
            return Ok(Some(key));
        }
        // It may be committed and not yet remembered; such terms are the last.
        let table = self.txn.open_table(TERMS)?;
        for entry in table.range(remembered.saturating_add(1)..)? {
            let (key, value) = entry?;
            if Term::read(value.value())? == *term {
                return Ok(Some(key.value()));
            }
        }
        Ok(None)
    }
}

impl Lookup for TermReader<'_> {
    fn term(&self, key: u32) -> Outcome<Term> {
        if let Some(term) = self.terms.term(key) {
            return Ok(term);
        }
        let table = self.txn.open_table(TERMS)?;
        let value = table.get(key)?.ok_or_else(|| Fault::Row(format!("term {key} is missing")))?;
        Term::read(value.value())
    }
}
