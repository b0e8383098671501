//! Prices, in memory.

use async_trait::async_trait;

use super::MemoryStore;
use crate::error::Result;
use crate::price::CostConfig;
use crate::refusal;
use crate::store::{CostStore, PriceList};

#[async_trait]
impl CostStore for MemoryStore {
    async fn cost_configs(&self) -> Result<PriceList> {
        let state = self.state();
        let configs = state.prices.values().cloned().collect();
        Ok(PriceList { generation: state.generation, configs })
    }

    async fn price_generation(&self) -> Result<u64> {
        Ok(self.state().generation)
    }

    async fn put_cost_configs(&self, configs: &[CostConfig], expected: u64) -> Result<()> {
        let mut state = self.state();
        if state.generation != expected {
            return Err(refusal::prices_changed(state.generation, expected));
        }
        let mut prices = state.prices.clone();
        for config in configs {
            config.validate()?;
            prices.insert(config.id, config.clone());
        }
        CostConfig::check_overlaps(prices.values())?;
        state.prices = prices;
        state.generation += 1;
        Ok(())
    }
}
