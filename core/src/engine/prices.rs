//! The prices of a store, to list and to set.
//! Invariant: history is never lost; a new price closes the one it follows.

use super::Engine;
use crate::error::{ErrorKind, Result};
use crate::id::CostConfigId;
use crate::price::{CostConfig, PriceOrigin};

/// The prices of a store. Get it from [`Engine::prices`](crate::Engine::prices).
#[derive(Debug, Clone)]
pub struct Prices {
    engine: Engine,
}

impl Prices {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// All prices, by provider, model, service tier and start.
    pub async fn list(&self) -> Result<Vec<CostConfig>> {
        let mut configs = self.engine.store().cost_configs().await?.configs;
        configs.sort_by(|a, b| {
            (&a.provider, a.rule.text(), &a.service_tier, a.origin, a.valid_from).cmp(&(
                &b.provider,
                b.rule.text(),
                &b.service_tier,
                b.origin,
                b.valid_from,
            ))
        });
        Ok(configs)
    }

    /// Sets a price of the user's. An open-ended price of the same line that started earlier is
    /// closed at the start of the new one, and holds again from its end, where it has one.
    ///
    /// # Errors
    /// `Invalid` if the price breaks a rule, or overlaps another of its line.
    pub async fn set(&self, price: CostConfig) -> Result<CostConfig> {
        let price = CostConfig { origin: PriceOrigin::User, ..price };
        price.validate()?;
        loop {
            let list = self.engine.store().cost_configs().await?;
            let mut changes = Vec::new();
            for old in list.configs.iter().filter(|old| gives_way(old, &price)) {
                changes.push(CostConfig { valid_to: price.valid_from, ..old.clone() });
                if price.valid_to.is_some() {
                    let id = CostConfigId::new();
                    changes.push(CostConfig { id, valid_from: price.valid_to, ..old.clone() });
                }
            }
            changes.push(price.clone());
            match self.engine.store().put_cost_configs(&changes, list.generation).await {
                Ok(()) => {
                    if let Err(error) = self.engine.reload_prices().await {
                        tracing::warn!(error = %error.chain(), "a price is set but not yet in use");
                    }
                    return Ok(price);
                }
                // Somebody else changed prices in between: look again.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether `old` is open-ended, of the line of `new`, and started before it.
fn gives_way(old: &CostConfig, new: &CostConfig) -> bool {
    let earlier = new.valid_from.is_some_and(|start| old.valid_from < Some(start));
    old.same_line(new) && old.valid_to.is_none() && earlier
}
