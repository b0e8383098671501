//! What the index answered for names that were seen before.
//! Invariant: bounded, and no lock is held while anything is looked up: a place is filled once and
//! then only read. Names that find no place, after some thousands of others, are looked up in the
//! index each time.

use std::hash::BuildHasher;
use std::sync::OnceLock;

use foldhash::fast::RandomState;

use super::index::Candidate;
use crate::label::Label;

/// Places; a power of two. A service calls some tens of models.
const PLACES: usize = 8_192;
/// Places that are looked at for one name.
const NEIGHBOURS: usize = 8;
/// Longer names than any label are not worth remembering.
const LONGEST: usize = Label::MAX_BYTES;

/// Provider, asked model and answered model, as a call names them.
type Names<'a> = (&'a str, &'a str, Option<&'a str>);

#[derive(Debug)]
pub(super) struct Memo {
    places: Box<[OnceLock<Box<Entry>>]>,
    hash: RandomState,
}

#[derive(Debug)]
struct Entry {
    provider: Box<str>,
    asked: Box<str>,
    answered: Option<Box<str>>,
    candidates: Box<[Candidate]>,
}

impl Entry {
    fn names(&self) -> Names<'_> {
        (&self.provider, &self.asked, self.answered.as_deref())
    }
}

impl Default for Memo {
    fn default() -> Self {
        let places = (0..PLACES).map(|_| OnceLock::new()).collect();
        Self { places, hash: RandomState::default() }
    }
}

impl Memo {
    /// Gives `read` what is known of `names`, from `look_up` where they are new.
    pub(super) fn with<T>(
        &self,
        names: Names<'_>,
        look_up: impl Fn() -> Vec<Candidate>,
        read: impl FnOnce(&[Candidate]) -> T,
    ) -> T {
        let (provider, asked, answered) = names;
        if provider.len().max(asked.len()).max(answered.map_or(0, str::len)) > LONGEST {
            return read(&look_up());
        }
        // What is beyond the places is cut off; only the low bits count.
        let first = usize::try_from(self.hash.hash_one(names) & 0xffff_ffff).unwrap_or(0);
        for step in 0..NEIGHBOURS {
            let place = &self.places[(first + step) % PLACES];
            if place.get().is_none() {
                // Who is second finds the place taken, by the same names or by others.
                let _ = place.set(Box::new(Entry {
                    provider: provider.into(),
                    asked: asked.into(),
                    answered: answered.map(Into::into),
                    candidates: look_up().into(),
                }));
            }
            if let Some(entry) = place.get().filter(|entry| entry.names() == names) {
                return read(&entry.candidates);
            }
        }
        read(&look_up())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_names_than_places_are_answered_right() {
        let memo = Memo::default();
        let number = u32::try_from(PLACES).unwrap() * 2;
        for _ in 0..2 {
            for n in 0..number {
                let name = n.to_string();
                let answered = (n % 2 == 0).then_some(name.as_str());
                let only = Candidate { line: n, standard_only: false };
                let found = memo.with(("p", &name, answered), || vec![only], <[_]>::to_vec);
                assert_eq!(found, [only]);
            }
        }
    }
}
