//! The prices of a store, to list, to set and to bring up to date.
//! Invariant: history is never lost; a price that is changed is closed or marked as replaced.

use super::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::id::CostConfigId;
use crate::label::Label;
use crate::model_rule::ModelRule;
use crate::price::{CostConfig, PriceOrigin};
use crate::price_book::named_tier;
use crate::price_history::{self, Renewal};
use crate::seed::seed_prices;
use crate::time::Timestamp;

/// The prices of a store. Get it from [`Engine::prices`](crate::Engine::prices).
#[derive(Debug, Clone)]
pub struct Prices {
    engine: Engine,
}

/// What [`Prices::load`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadedPrices {
    /// Prices of the library, whether they were new or not.
    pub known: u64,
    /// Prices that were new.
    pub added: u64,
    /// Prices that were open and now end where another starts.
    pub closed: u64,
    /// Prices that were to come, or that stood beside those of another name of their model.
    pub replaced: u64,
    /// Prices that changed in which names of models they are for, and in nothing else.
    pub renamed: u64,
}

impl Prices {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// All prices, by provider, model, service tier and start; those that were replaced too.
    pub async fn list(&self) -> Result<Vec<CostConfig>> {
        let mut configs = self.engine.store().cost_configs().await?.configs;
        configs.sort_by(|a, b| {
            let key = |of: &CostConfig| (of.origin, of.valid_from, of.replaced_at);
            (&a.provider, &a.model, &a.service_tier, key(a)).cmp(&(
                &b.provider,
                &b.model,
                &b.service_tier,
                key(b),
            ))
        });
        Ok(configs)
    }

    /// Sets a price of the user's for all of its range. A price of the same line that started
    /// earlier is closed where the new one starts, and holds again from its end, where it has one;
    /// one that started within its range is kept and marked as replaced. Calls that were priced
    /// before stay as they are: see [`Engine::reprice`](crate::Engine::reprice).
    ///
    /// Answers the price as it is stored, under an id of its own; one that says the same in the
    /// same range is left as it is.
    ///
    /// # Errors
    /// `Invalid` if the price breaks a rule.
    pub async fn set(&self, price: CostConfig) -> Result<CostConfig> {
        let trimmed = |label: &Label| Label::lossy(label.trim());
        // By whatever name the standard tier is called, it is the one without a name.
        let tier = named_tier(price.service_tier.as_deref().map(str::trim));
        let rule = match &price.rule {
            ModelRule::Equals(name) => ModelRule::Equals(trimmed(name)),
            rule => rule.clone(),
        };
        let price = CostConfig {
            id: CostConfigId::new(), // of what calls were priced with nothing is written over
            origin: PriceOrigin::User,
            provider: trimmed(&price.provider),
            model: trimmed(&price.model),
            rule,
            service_tier: tier.map(Label::lossy),
            replaced_at: None,
            ..price
        };
        price.validate()?;
        self.change(|stored| match price_history::same(stored, &price) {
            Some(known) if price.source.is_none() || price.source == known.source => {
                (Vec::new(), known.clone())
            }
            Some(known) => {
                let read_elsewhere = CostConfig { source: price.source.clone(), ..known.clone() };
                (vec![read_elsewhere.clone()], read_elsewhere)
            }
            None => (price_history::set(stored, price.clone(), Timestamp::now()), price.clone()),
        })
        .await
    }

    /// Brings the prices that came with the library up to date; those of the user stay as they are.
    ///
    /// A price that starts at a date which was not known takes effect from that date on; one that
    /// says something else without a date does so from now on. Nothing is lost, and a second time
    /// changes nothing.
    pub async fn load(&self) -> Result<LoadedPrices> {
        let fresh = seed_prices();
        self.change(|stored| {
            let Renewal { rows, added, closed, replaced, renamed } =
                price_history::renew(stored, &fresh, Timestamp::now());
            let known = fresh.len() as u64;
            (rows, LoadedPrices { known, added, closed, replaced, renamed })
        })
        .await
    }

    /// Writes the rows that `decide` answers for the stored ones, again where somebody else was faster.
    async fn change<T>(&self, decide: impl Fn(&[CostConfig]) -> (Vec<CostConfig>, T)) -> Result<T> {
        let store = self.engine.store();
        loop {
            let list = store.cost_configs().await?;
            let (rows, done) = decide(&list.configs);
            if rows.is_empty() {
                return Ok(done);
            }
            match store.put_cost_configs(&rows, list.generation).await {
                Ok(()) => {
                    self.engine.reload_prices().await.unwrap_or_else(|error: Error| {
                        tracing::warn!(error = %error.chain(), "a price is set but not yet in use");
                    });
                    return Ok(done);
                }
                // Somebody else changed prices in between: look again.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }
}
