//! Prices: few values, read as a whole and changed as a whole.
//! Invariant: the generation moves in the transaction that changes a price, and only there.

use prompt_engine_core::{CostConfig, CostStore, PriceList, Result, codec, refusal};
use redb::{ReadableTable, WriteTransaction};

use crate::error::{Fault, Outcome};
use crate::layout::{Id, META, PRICES, number_value};
use crate::store::{RedbStore, meta};

const GENERATION: &str = "price_generation";

#[async_trait::async_trait]
impl CostStore for RedbStore {
    async fn cost_configs(&self) -> Result<PriceList> {
        self.read(|txn, _| {
            Ok(PriceList {
                generation: generation(&txn.open_table(META)?)?,
                configs: configs(&txn.open_table(PRICES)?)?,
            })
        })
        .await
    }

    async fn price_generation(&self) -> Result<u64> {
        self.read(|txn, _| generation(&txn.open_table(META)?)).await
    }

    async fn put_cost_configs(&self, new: &[CostConfig], expected: u64) -> Result<()> {
        let new = new.to_vec();
        self.write(move |txn| put(txn, &new, expected)).await
    }
}

fn generation(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Outcome<u64> {
    Ok(meta(table, GENERATION)?.unwrap_or(0).cast_unsigned())
}

fn configs(table: &impl ReadableTable<Id, &'static [u8]>) -> Outcome<Vec<CostConfig>> {
    table.iter()?.map(|entry| Ok(codec::decode(entry?.1.value())?)).collect()
}

fn put(txn: &WriteTransaction, new: &[CostConfig], expected: u64) -> Outcome<()> {
    let mut meta = txn.open_table(META)?;
    let generation = generation(&meta)?;
    if generation != expected {
        return Err(Fault::Judged(refusal::prices_changed(generation, expected)));
    }
    let mut prices = txn.open_table(PRICES)?;
    for config in new {
        config.validate()?;
        prices.insert(config.id.to_bytes(), &*codec::encode(config)?)?;
    }
    CostConfig::check_overlaps(&configs(&prices)?)?;
    meta.insert(GENERATION, &number_value(generation.saturating_add(1).cast_signed())[..])?;
    Ok(())
}
