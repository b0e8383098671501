//! What was written is there when the store is opened again.

use std::slice;

use super::Fixture;
use super::arbitrary::{Arbitrary, at, next, price, prompt, version};
use crate::aggregate::{AggregateQuery, Dimension};
use crate::query::{PageQuery, RecordQuery};
use crate::record::Record;
use crate::time::{Bucket, BucketWidth};

/// Everything that can be asked has the same answer after the store was closed and opened.
pub async fn everything_is_there_after_opening_again(fx: Fixture) {
    let mut random = Arbitrary::new(71, 2 * 86_400);
    let records: Vec<Record> = (0..100).flat_map(|_| random.records()).collect();
    fx.append(&records).await;
    let (first, first_version) = prompt("kept");
    fx.store.insert_prompt(&first, slice::from_ref(&first_version)).await.unwrap();
    let second = next(&first, 2);
    fx.store.update_prompt(&second, Some(&version(&first, 2))).await.unwrap();
    let generation = fx.store.price_generation().await.unwrap();
    fx.store.put_cost_configs(&[price("a"), price("b")], generation).await.unwrap();
    let prices = fx.store.cost_configs().await.unwrap();
    let query =
        RecordQuery { page: PageQuery { limit: 1000, after: None }, ..RecordQuery::default() };
    let bucket = Some(Bucket { width: BucketWidth::Hour, zone: "UTC".parse().unwrap() });
    let group_by = vec![Dimension::Prompt, Dimension::Model];
    let question = AggregateQuery { bucket, group_by, ..AggregateQuery::default() };
    let rows = fx.store.aggregate(&question).await.unwrap().rows;
    let usages = fx.store.list_usages(&query).await.unwrap();
    let executions = fx.store.list_executions(&query).await.unwrap();

    let mut fx = fx;
    for _ in 0..2 {
        fx = fx.reopened().await;
        super::append::all_are_stored(&fx, &records).await;
        assert_eq!(fx.store.aggregate(&question).await.unwrap().rows, rows);
        assert_eq!(fx.store.list_usages(&query).await.unwrap(), usages);
        assert_eq!(fx.store.list_executions(&query).await.unwrap(), executions);
        assert_eq!(fx.store.prompt_by_slug(&first.slug).await.unwrap().as_ref(), Some(&second));
        let page = fx.store.list_versions(first.id, &PageQuery::default()).await.unwrap();
        assert_eq!(page.items, [version(&first, 2), first_version.clone()]);
        assert_eq!(fx.store.cost_configs().await.unwrap(), prices);
        assert_eq!(fx.store.raw_horizon().await.unwrap(), None);
    }
    // It can be written again, and knows what it has.
    assert_eq!(fx.append(&records).await.unchanged, records.len() as u64);
    let (late, _) = super::arbitrary::call(at(0));
    assert_eq!(fx.append(&[late.into()]).await.stored, 1);
}
