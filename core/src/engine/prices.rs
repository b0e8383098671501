//! The prices of a store, to list and to set.
//! Invariant: history is never lost; a new price closes the one it follows.

use super::Engine;
use crate::error::{ErrorKind, Result};
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
    /// closed at the start of the new one.
    ///
    /// # Errors
    /// `Invalid` if the price breaks a rule, or overlaps another of its line.
    pub async fn set(&self, price: CostConfig) -> Result<CostConfig> {
        let price = CostConfig { origin: PriceOrigin::User, ..price };
        price.validate()?;
        loop {
            let list = self.engine.store().cost_configs().await?;
            let mut changes: Vec<CostConfig> = list
                .configs
                .iter()
                .filter(|old| {
                    old.same_line(&price)
                        && old.valid_to.is_none()
                        && price.valid_from.is_some_and(|start| old.valid_from < Some(start))
                })
                .map(|old| CostConfig { valid_to: price.valid_from, ..old.clone() })
                .collect();
            changes.push(price.clone());
            match self.engine.store().put_cost_configs(&changes, list.generation).await {
                Ok(()) => {
                    self.engine.reload_prices().await?;
                    return Ok(price);
                }
                // Somebody else changed prices in between: look again.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }
}
