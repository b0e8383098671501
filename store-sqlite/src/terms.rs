//! The dictionary: texts and ids that many rows share, each stored once and named by a small key.
//! Invariant: what is remembered here was read from, or written by, a committed transaction. A key
//! given by one that rolled back is given again, to another value.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use prompt_engine_core::{CostConfigId, Label, PromptId};
use rusqlite::{Connection, OptionalExtension};

use crate::error::{Fault, Outcome};

/// What a term is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Prompt = 0,
    Environment = 1,
    Provider = 2,
    Model = 3,
    Price = 4,
    ServiceTier = 5,
}

const KINDS: usize = 6;

impl Kind {
    fn code(self) -> i64 {
        self as i64
    }
}

/// A term, as records hold it.
#[derive(Debug, Clone)]
pub(crate) enum Term {
    Prompt(PromptId),
    Price(CostConfigId),
    Label(Label),
}

/// The terms that this process has met.
#[derive(Debug, Default)]
pub(crate) struct Terms(RwLock<Met>);

#[derive(Debug, Default)]
struct Met {
    keys: [HashMap<Box<[u8]>, i64>; KINDS],
    terms: HashMap<i64, Term>,
}

impl Terms {
    fn key(&self, kind: Kind, value: &[u8]) -> Option<i64> {
        let met = self.0.read().unwrap_or_else(PoisonError::into_inner);
        met.keys[kind as usize].get(value).copied()
    }

    fn term(&self, key: i64) -> Option<Term> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).terms.get(&key).cloned()
    }

    fn remember_key(&self, kind: Kind, value: &[u8], key: i64) {
        let mut met = self.0.write().unwrap_or_else(PoisonError::into_inner);
        met.keys[kind as usize].insert(value.into(), key);
    }

    fn remember_term(&self, key: i64, term: Term) {
        let mut met = self.0.write().unwrap_or_else(PoisonError::into_inner);
        met.terms.insert(key, term);
    }
}

/// The terms of one write transaction.
pub(crate) struct TermWriter<'a> {
    terms: &'a Terms,
    conn: &'a Connection,
    new: Vec<(Kind, Box<[u8]>, i64)>,
}

/// Terms that became known in a transaction that has yet to commit.
pub(crate) struct NewTerms(Vec<(Kind, Box<[u8]>, i64)>);

impl<'a> TermWriter<'a> {
    pub(crate) fn new(terms: &'a Terms, conn: &'a Connection) -> Self {
        Self { terms, conn, new: Vec::new() }
    }

    /// The key of `value`, which is added if it is new.
    pub(crate) fn key(&mut self, kind: Kind, value: &[u8]) -> Outcome<i64> {
        if let Some(key) = self.terms.key(kind, value) {
            return Ok(key);
        }
        let met = self.new.iter().find(|(k, v, _)| *k == kind && **v == *value);
        if let Some((_, _, key)) = met {
            return Ok(*key);
        }
        self.conn
            .prepare_cached(
                "INSERT INTO prompt_engine_terms (kind, value) VALUES (?, ?)
                 ON CONFLICT DO NOTHING",
            )?
            .execute((kind.code(), value))?;
        let key = select(self.conn, kind, value)?
            .ok_or_else(|| Fault::Row("a term that was just added is missing".to_owned()))?;
        self.new.push((kind, value.into(), key));
        Ok(key)
    }

    pub(crate) fn label(&mut self, kind: Kind, label: &Label) -> Outcome<i64> {
        self.key(kind, label.as_bytes())
    }

    pub(crate) fn prompt(&mut self, id: PromptId) -> Outcome<i64> {
        self.key(Kind::Prompt, &id.to_bytes())
    }

    pub(crate) fn price(&mut self, id: CostConfigId) -> Outcome<i64> {
        self.key(Kind::Price, &id.to_bytes())
    }

    /// What to hand to [`NewTerms::remember`] once the transaction is committed.
    pub(crate) fn finish(self) -> NewTerms {
        NewTerms(self.new)
    }
}

impl NewTerms {
    /// Remembers the terms, now that they are committed.
    pub(crate) fn remember(self, terms: &Terms) {
        for (kind, value, key) in self.0 {
            terms.remember_key(kind, &value, key);
        }
    }
}

/// The terms of one read transaction.
pub(crate) struct TermReader<'a> {
    terms: &'a Terms,
    conn: &'a Connection,
    met: HashMap<i64, Term>,
}

impl<'a> TermReader<'a> {
    pub(crate) fn new(terms: &'a Terms, conn: &'a Connection) -> Self {
        Self { terms, conn, met: HashMap::new() }
    }

    /// The key of `value`; `None` if no row can have it.
    pub(crate) fn key(&self, kind: Kind, value: &[u8]) -> Outcome<Option<i64>> {
        match self.terms.key(kind, value) {
            Some(key) => Ok(Some(key)),
            None => select(self.conn, kind, value),
        }
    }

    fn term(&mut self, key: i64) -> Outcome<&Term> {
        use std::collections::hash_map::Entry;
        match self.met.entry(key) {
            Entry::Occupied(met) => Ok(met.into_mut()),
            Entry::Vacant(free) => {
                let term = match self.terms.term(key) {
                    Some(term) => term,
                    None => {
                        let term = read(self.conn, key)?;
                        self.terms.remember_term(key, term.clone());
                        term
                    }
                };
                Ok(free.insert(term))
            }
        }
    }

    pub(crate) fn label(&mut self, key: i64) -> Outcome<Label> {
        match self.term(key)? {
            Term::Label(label) => Ok(label.clone()),
            _ => Err(Fault::Row(format!("term {key} is no text"))),
        }
    }

    pub(crate) fn prompt(&mut self, key: i64) -> Outcome<PromptId> {
        match self.term(key)? {
            Term::Prompt(id) => Ok(*id),
            _ => Err(Fault::Row(format!("term {key} is no prompt"))),
        }
    }

    pub(crate) fn price(&mut self, key: i64) -> Outcome<CostConfigId> {
        match self.term(key)? {
            Term::Price(id) => Ok(*id),
            _ => Err(Fault::Row(format!("term {key} is no price"))),
        }
    }
}

fn select(conn: &Connection, kind: Kind, value: &[u8]) -> Outcome<Option<i64>> {
    let mut statement =
        conn.prepare_cached("SELECT key FROM prompt_engine_terms WHERE kind = ? AND value = ?")?;
    Ok(statement.query_row((kind.code(), value), |row| row.get(0)).optional()?)
}

fn read(conn: &Connection, key: i64) -> Outcome<Term> {
    let mut statement =
        conn.prepare_cached("SELECT kind, value FROM prompt_engine_terms WHERE key = ?")?;
    let (kind, value): (i64, Vec<u8>) = statement
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or_else(|| Fault::Row(format!("term {key} is missing")))?;
    let id = |value: Vec<u8>| {
        <[u8; 16]>::try_from(value).map_err(|_| Fault::Row(format!("term {key} is no id")))
    };
    if kind == Kind::Prompt.code() {
        Ok(Term::Prompt(PromptId::from_bytes(id(value)?)))
    } else if kind == Kind::Price.code() {
        Ok(Term::Price(CostConfigId::from_bytes(id(value)?)))
    } else {
        let text = String::from_utf8(value)
            .map_err(|_| Fault::Row(format!("term {key} is no UTF-8 text")))?;
        let label = Label::new(text).map_err(|error| Fault::Row(format!("term {key}: {error}")))?;
        Ok(Term::Label(label))
    }
}
