//! What lies in the tables of a store, as a test looks at it.
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeSet;

use prompt_engine_core::codec::{Pack, Place};
use sqlx::{PgConnection, query_as, query_scalar};

/// How many payloads lie alone, and how many in packs.
///
/// # Panics
/// If a pack lacks a payload whose place is kept, or holds another, or none.
pub(crate) async fn payloads(conn: &mut PgConnection) -> (usize, usize) {
    let kept: Vec<Vec<u8>> = query_scalar(
        "SELECT data FROM prompt_engine_usage_payloads
         UNION ALL SELECT data FROM prompt_engine_llm_execution_payloads",
    )
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    let places = kept.iter().filter_map(|data| Place::of(data).unwrap());
    let places: Vec<Place> = places.collect();
    let packs: Vec<(i64, Vec<u8>)> =
        query_as("SELECT id, data FROM prompt_engine_payload_packs").fetch_all(conn).await.unwrap();
    let mut lines = BTreeSet::new();
    for (number, data) in packs {
        let pack = Pack::read(&data).unwrap();
        let before = lines.len();
        let held = (0..pack.len()).filter(|line| pack.get::<serde_json::Value>(*line).is_ok());
        lines.extend(held.map(|line| Place { pack: number.cast_unsigned(), line }));
        assert!(lines.len() > before, "pack {number} holds nothing");
    }
    assert_eq!(lines, places.iter().copied().collect());
    assert_eq!(lines.len(), places.len(), "two payloads have one place");
    (kept.len() - places.len(), places.len())
}
