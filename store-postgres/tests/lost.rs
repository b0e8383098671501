//! Connections that are lost: before work, in the middle of it, at its COMMIT; and callers that give
//! up. What was written counts once, and nobody is told of what could be done again.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod proxy;
mod records;
mod server;
mod stored;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prompt_engine_core::{
    AggregateQuery, CostConfig, CostRevision, CostStore, ErrorKind, Measures, Prompt, PromptId,
    PromptStatus, PromptStore, Prune, Rebuild, Record, RecordQuery, RecordStore, Revised, Source,
};
use prompt_engine_store_postgres::{PostgresConfig, PostgresStore};
use sqlx::{Executor, PgConnection, query, query_scalar, raw_sql};
use tokio::task::yield_now;
use tokio::time::timeout;

use proxy::{Cut, Proxy};
use records::{at, finished, pending, usage};
use server::{Schema, connect};

const LOCK: &str = "BEGIN; LOCK TABLE prompt_engine_meta, prompt_engine_usages,
    prompt_engine_llm_executions, prompt_engine_prompts IN ACCESS EXCLUSIVE MODE";

/// Ends all connections of the stores in `schema`; answers how many there were.
async fn terminate(conn: &mut PgConnection, schema: &Schema) -> usize {
    let ended: Vec<bool> = query_scalar(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
    )
    .bind(&schema.name)
    .fetch_all(conn)
    .await
    .unwrap();
    ended.len()
}

/// Returns once so many connections of the stores in `schema` wait for a lock.
///
/// # Panics
/// If they never do.
async fn wait_for_waiting(conn: &mut PgConnection, schema: &Schema, waiting: i64) {
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < Duration::from_secs(30), "nobody waits");
        let found: i64 = query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE application_name = $1 AND wait_event_type = 'Lock'",
        )
        .bind(&schema.name)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        if found >= waiting {
            return;
        }
        yield_now().await;
    }
}

async fn total(store: &PostgresStore) -> Measures {
    let mut rows = store.aggregate(&Default::default()).await.unwrap().rows;
    rows.remove(0).measures
}

fn prompt(slug: &str) -> Prompt {
    Prompt {
        id: PromptId::new(),
        slug: slug.parse().unwrap(),
        name: "Lost".to_owned(),
        description: None,
        status: PromptStatus::Active,
        parameters: Vec::new(),
        active_version: None,
        latest_version: 0,
        revision: 1,
        created_at: at(0),
        updated_at: at(0),
    }
}

fn batch(second: i64) -> [Record; 2] {
    [usage(second).into(), finished(pending(second)).into()]
}

#[tokio::test]
async fn connections_that_were_lost_in_between_are_replaced() {
    let schema = Schema::new();
    // More than a single piece of work is done again: those that are left must be found dead.
    let store = PostgresStore::open(schema.config().with_max_connections(12)).await.unwrap();
    let (mut holder, mut conn) = (schema.connect().await, connect().await);
    for round in 0..4 {
        holder.execute(LOCK).await.unwrap();
        let appends = (0..12).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.append(&batch(round * 12 + n)).await })
        });
        let appends: Vec<_> = appends.collect();
        wait_for_waiting(&mut conn, &schema, 12).await;
        holder.execute("COMMIT").await.unwrap();
        for append in appends {
            assert_eq!(append.await.unwrap().unwrap().stored, 2);
        }
        assert!(terminate(&mut conn, &schema).await >= 12);
        let page = RecordQuery::default();
        match round {
            0 => assert_eq!(store.append(&batch(99)).await.unwrap().stored, 2),
            1 => assert_eq!(total(&store).await.executions(), 25),
            2 => assert_eq!(store.list_usages(&page).await.unwrap().items.len(), 37),
            _ => store.insert_prompt(&prompt("after"), &[]).await.unwrap(),
        }
    }
    assert_eq!(total(&store).await.executions(), 49);
}

#[tokio::test]
async fn work_whose_connection_is_lost_in_the_middle_is_done_again() {
    let schema = Schema::new();
    let store = schema.open().await;
    let stored = batch(1);
    let first = prompt("first");
    store.append(&stored).await.unwrap();
    store.insert_prompt(&first, &[]).await.unwrap();
    let Record::Execution(call) = &stored[1] else { panic!("the second is a call") };
    let revision = CostRevision {
        id: call.id,
        expected: call.cost.unwrap(),
        past: None,
        new: prompt_engine_core::Cost::LocalCache,
        priced_model: None,
        at: at(50),
    };
    let (mut holder, mut conn) = (schema.connect().await, connect().await);
    holder.execute(LOCK).await.unwrap();
    let spawn = |work: usize| {
        let (store, first, revision) = (store.clone(), first.clone(), revision.clone());
        tokio::spawn(async move {
            match work {
                0 => assert_eq!(store.append(&batch(2)).await.unwrap().stored, 2),
                1 => {
                    let next = Prompt { revision: 2, name: "Next".to_owned(), ..first };
                    store.update_prompt(&next, None).await.unwrap();
                }
                2 => {
                    let done = store.revise_costs(&[revision]).await.unwrap();
                    assert_eq!(done, [Revised::Changed]);
                }
                3 => {
                    let price =
                        CostConfig::new("openai".parse().unwrap(), "gpt-4o".parse().unwrap());
                    let price = CostConfig { per_request: Some(1.into()), ..price };
                    store.put_cost_configs(&[price], 0).await.unwrap();
                }
                _ => assert!(total(&store).await.executions() > 0),
            }
        })
    };
    // As many as there are connections.
    let work: Vec<_> = [0, 1, 2, 4].map(spawn).into();
    for _ in 0..2 {
        wait_for_waiting(&mut conn, &schema, 4).await;
        assert!(terminate(&mut conn, &schema).await >= 4);
    }
    wait_for_waiting(&mut conn, &schema, 4).await;
    let prices = spawn(3);
    holder.execute("COMMIT").await.unwrap();
    for work in work.into_iter().chain([prices]) {
        work.await.unwrap();
    }
    let measures = total(&store).await;
    assert_eq!((measures.uses, measures.executions()), (Some(2), 2));
    assert_eq!(store.prompt(first.id).await.unwrap().unwrap().revision, 2);
    assert_eq!(store.past_costs(&[call.id]).await.unwrap()[0].len(), 1);
    assert_eq!(store.price_generation().await.unwrap(), 1);
}

#[tokio::test]
async fn appends_under_fire_count_once() {
    let schema = Schema::new();
    let store = schema.open().await;
    let appended = Arc::new(AtomicUsize::new(0));
    let writers = (0..4).map(|writer| {
        let (store, appended) = (store.clone(), Arc::clone(&appended));
        tokio::spawn(async move {
            for n in 0..50 {
                let batch = batch(writer * 1_000 + n);
                // Done again after a lost COMMIT it finds itself stored.
                let done = store.append(&batch).await.unwrap();
                assert_eq!(done.stored + done.unchanged, 2);
                appended.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut conn = connect().await;
    for fire in 1..=3 {
        while appended.load(Ordering::Relaxed) < fire * 50 {
            assert!(writers.iter().any(|writer| !writer.is_finished()), "a writer gave up");
            yield_now().await;
        }
        terminate(&mut conn, &schema).await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let measures = total(&store).await;
    assert_eq!((measures.uses, measures.executions()), (Some(200), 200));
    assert_eq!(stored::payloads(&mut schema.connect().await).await, (0, 400));
}

async fn through(proxy: &Proxy, schema: &Schema) -> PostgresStore {
    let url = proxy.through(&schema.url());
    PostgresStore::open(PostgresConfig::from_url(url.as_str()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn an_append_whose_commit_was_not_answered_counts_once() {
    let schema = Schema::new();
    let proxy = Proxy::start(&server::url());
    let store = through(&proxy, &schema).await;
    let batch = batch(1);
    proxy.cut_at_commit(Cut::After);
    let done = store.append(&batch).await.unwrap();
    assert!(proxy.was_cut());
    assert_eq!((done.stored, done.unchanged), (0, 2), "it was stored, and found so");
    let measures = total(&store).await;
    assert_eq!((measures.uses, measures.executions()), (Some(1), 1));
    assert_eq!(stored::payloads(&mut schema.connect().await).await, (0, 2));
}

#[tokio::test]
async fn an_append_whose_commit_never_arrived_is_done_again() {
    let schema = Schema::new();
    let proxy = Proxy::start(&server::url());
    let store = through(&proxy, &schema).await;
    proxy.cut_at_commit(Cut::Before);
    assert_eq!(store.append(&batch(1)).await.unwrap().stored, 2);
    assert!(proxy.was_cut());
    assert_eq!(total(&store).await.executions(), 1);
    assert_eq!(stored::payloads(&mut schema.connect().await).await, (0, 2));
}

#[tokio::test]
async fn a_fold_whose_connection_is_lost_at_its_commit_counts_once() {
    let schema = Schema::new();
    let proxy = Proxy::start(&server::url());
    let store = through(&proxy, &schema).await;
    for (second, cut, left) in [(1, Cut::After, 0), (2, Cut::Before, 2)] {
        store.append(&batch(second)).await.unwrap();
        proxy.cut_at_commit(cut);
        // Done again after a lost COMMIT it finds nothing.
        assert_eq!(store.fold().await.unwrap().changes, left);
        assert!(proxy.was_cut());
        let measures = total(&store).await;
        let count = u64::try_from(second).unwrap();
        assert_eq!((measures.uses, measures.executions()), (Some(count), count));
        let mut conn = schema.connect().await;
        let waiting: i64 = query_scalar("SELECT count(*) FROM prompt_engine_changes")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert_eq!(waiting, 0);
    }
    for rebuilt in [Rebuild::Hour(at(1)), Rebuild::Day(at(1))] {
        store.append(&batch(3)).await.unwrap();
        proxy.cut_at_commit(Cut::After);
        store.rebuild(rebuilt).await.unwrap();
    }
    assert_eq!(total(&store).await.executions(), 4);
}

#[tokio::test]
async fn folds_under_fire_count_once() {
    let schema = Schema::new();
    let store = schema.open().await;
    let done = Arc::new(AtomicUsize::new(0));
    let folder = tokio::spawn({
        let (store, done) = (store.clone(), Arc::clone(&done));
        async move {
            while done.load(Ordering::Relaxed) < 120 {
                store.fold().await.unwrap();
                yield_now().await;
            }
        }
    });
    let writer = tokio::spawn({
        let (store, done) = (store.clone(), Arc::clone(&done));
        async move {
            for second in 0..120 {
                store.append(&batch(60 * second)).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut conn = connect().await;
    for fire in 1..=5 {
        while done.load(Ordering::Relaxed) < fire * 20 {
            assert!(!writer.is_finished() && !folder.is_finished(), "somebody gave up");
            yield_now().await;
        }
        terminate(&mut conn, &schema).await;
        let measures = total(&store).await;
        assert_eq!(measures.uses, Some(measures.executions()));
    }
    writer.await.unwrap();
    folder.await.unwrap();
    while store.fold().await.unwrap().more {}
    let mut found = Vec::new();
    for source in [Source::Any, Source::Records] {
        let query = AggregateQuery { source, ..AggregateQuery::default() };
        found.push(store.aggregate(&query).await.unwrap().rows);
    }
    assert_eq!(found[0][0].measures.executions(), 120);
    assert_eq!(found[0], found[1]);
}

#[tokio::test]
async fn a_fold_waits_for_no_append_and_no_append_for_it() {
    let schema = Schema::new();
    let store = schema.open().await;
    store.append(&batch(1)).await.unwrap();
    let (mut holder, mut conn) = (schema.connect().await, connect().await);
    // An append is under way …
    holder.execute("BEGIN; LOCK TABLE prompt_engine_usages IN SHARE MODE").await.unwrap();
    let append = tokio::spawn({
        let store = store.clone();
        async move { store.append(&batch(2)).await }
    });
    wait_for_waiting(&mut conn, &schema, 1).await;
    assert_eq!(store.fold().await.unwrap().changes, 2);
    holder.execute("COMMIT").await.unwrap();
    assert_eq!(append.await.unwrap().unwrap().stored, 2);
    // … and now a fold is, and another waits for it.
    holder.execute("BEGIN; LOCK TABLE prompt_engine_cells IN SHARE MODE").await.unwrap();
    let fold = || {
        let store = store.clone();
        tokio::spawn(async move { store.fold().await })
    };
    let folds = [fold(), fold()];
    wait_for_waiting(&mut conn, &schema, 2).await;
    assert_eq!(store.append(&batch(3)).await.unwrap().stored, 2);
    let all = Prune { payloads_before: None, raw_before: Some(at(900)), limit: 10 };
    assert!(store.prune(&all).await.unwrap().done);
    assert_eq!(total(&store).await.executions(), 3);
    holder.execute("COMMIT").await.unwrap();
    let mut changes = 0;
    for fold in folds {
        changes += fold.await.unwrap().unwrap().changes;
    }
    assert_eq!(changes, 4);
    assert_eq!(total(&store).await.executions(), 3);
}

#[tokio::test]
async fn a_change_whose_commit_was_not_answered_is_said_to_be_unknown() {
    let schema = Schema::new();
    let proxy = Proxy::start(&server::url());
    let store = through(&proxy, &schema).await;
    let first = prompt("first");
    let unknown = |error: prompt_engine_core::Error| {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("whether it holds is not known"), "{}", error.chain());
    };
    proxy.cut_at_commit(Cut::After);
    unknown(store.insert_prompt(&first, &[]).await.unwrap_err());
    assert_eq!(store.prompt(first.id).await.unwrap().as_ref(), Some(&first), "it does hold");
    let next = Prompt { revision: 2, ..first };
    proxy.cut_at_commit(Cut::Before);
    unknown(store.update_prompt(&next, None).await.unwrap_err());
    assert_eq!(store.prompt(next.id).await.unwrap().unwrap().revision, 1, "it does not hold");
    store.update_prompt(&next, None).await.unwrap();
    proxy.cut_at_commit(Cut::After);
    unknown(store.put_cost_configs(&[], 0).await.unwrap_err());
    assert_eq!(store.price_generation().await.unwrap(), 1);
    let call = finished(pending(1));
    store.append(&[call.clone().into()]).await.unwrap();
    let revision = CostRevision {
        id: call.id,
        expected: call.cost.unwrap(),
        past: None,
        new: prompt_engine_core::Cost::LocalCache,
        priced_model: None,
        at: at(50),
    };
    proxy.cut_at_commit(Cut::After);
    unknown(store.revise_costs(std::slice::from_ref(&revision)).await.unwrap_err());
    assert_eq!(store.revise_costs(&[revision]).await.unwrap(), [Revised::Mismatch]);
}

#[tokio::test]
async fn what_a_caller_gave_up_is_written_whole_or_not_at_all() {
    let schema = Schema::new();
    let store = PostgresStore::open(schema.config().with_max_connections(1)).await.unwrap();
    // From now on an append is sent whole, so that the server goes on with one that was given up.
    store.append(&batch(0)).await.unwrap();
    let (mut holder, mut conn) = (schema.connect().await, connect().await);
    holder.execute(LOCK).await.unwrap();
    let given_up = tokio::spawn({
        let store = store.clone();
        async move { store.append(&batch(1)).await }
    });
    wait_for_waiting(&mut conn, &schema, 1).await;
    given_up.abort();
    assert!(given_up.await.unwrap_err().is_cancelled());
    holder.execute("COMMIT").await.unwrap();
    // Its place is free again, and the next in it starts afresh.
    assert_eq!(store.append(&batch(2)).await.unwrap().stored, 2);
    let measures = total(&store).await;
    assert_eq!((measures.uses, measures.executions()), (Some(2), 2));
}

#[tokio::test]
async fn who_finds_no_free_connection_is_told_so_in_time() {
    let schema = Schema::new();
    let config = schema.config().with_max_connections(1);
    let config = config.with_acquire_timeout(Duration::from_secs(1));
    let store = PostgresStore::open(config).await.unwrap();
    let (mut holder, mut conn) = (schema.connect().await, connect().await);
    holder.execute(LOCK).await.unwrap();
    let blocked = tokio::spawn({
        let store = store.clone();
        async move { store.append(&batch(1)).await }
    });
    wait_for_waiting(&mut conn, &schema, 1).await;
    let error = store.prompt(PromptId::new()).await.unwrap_err();
    assert!(error.is_retryable());
    assert!(error.chain().contains("all 1 connections were in use for 1s"), "{}", error.chain());
    holder.execute("COMMIT").await.unwrap();
    assert_eq!(blocked.await.unwrap().unwrap().stored, 2);
}

#[tokio::test]
async fn a_prune_waits_for_appends_that_are_under_way() {
    let schema = Schema::new();
    let store = schema.open().await;
    let (mut holder, mut conn) = (schema.connect().await, connect().await);
    holder.execute("BEGIN; LOCK TABLE prompt_engine_usages IN SHARE MODE").await.unwrap();
    let append = tokio::spawn({
        let store = store.clone();
        async move { store.append(&batch(1)).await }
    });
    wait_for_waiting(&mut conn, &schema, 1).await;
    let prune = tokio::spawn({
        let store = store.clone();
        let all = Prune { payloads_before: None, raw_before: Some(at(900)), limit: 10 };
        async move { store.prune(&all).await }
    });
    wait_for_waiting(&mut conn, &schema, 2).await;
    holder.execute("COMMIT").await.unwrap();
    assert_eq!(append.await.unwrap().unwrap().stored, 2);
    let pruned = prune.await.unwrap().unwrap();
    assert_eq!((pruned.usages, pruned.executions, pruned.done), (1, 1, true));
    let error = store.append(&batch(1)).await.unwrap_err();
    assert!(error.to_string().contains("before the raw horizon"), "{error}");
    assert_eq!(total(&store).await.executions(), 1, "sums keep it");
}

#[tokio::test]
async fn an_append_does_not_wait_for_another_one() {
    let schema = Schema::new();
    let store = schema.open().await;
    let (mut holder, mut conn) = (schema.connect().await, connect().await);
    let [first, second] = [batch(1), batch(2)];
    store.append(&first).await.unwrap();
    // Somebody else is about to write the same usage.
    let Record::Usage(usage) = &second[0] else { panic!("the first is a usage") };
    holder.execute("BEGIN").await.unwrap();
    query(
        "INSERT INTO prompt_engine_usages (created_at, id, prompt, version, environment)
         SELECT created_at, $1::text::uuid, prompt, version, environment FROM prompt_engine_usages",
    )
    .bind(usage.id.to_string())
    .execute(&mut holder)
    .await
    .unwrap();
    let waiting = tokio::spawn({
        let (store, second) = (store.clone(), second.clone());
        async move { store.append(&second).await }
    });
    wait_for_waiting(&mut conn, &schema, 1).await;
    let third = batch(3);
    let other = timeout(Duration::from_secs(30), store.append(&third)).await;
    assert_eq!(other.expect("it waits, too").unwrap().stored, 2);
    holder.execute("ROLLBACK").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().stored, 2);
}

#[tokio::test]
async fn of_changes_that_wait_for_each_other_one_wins() {
    let schema = Schema::new();
    let store = schema.open().await;
    let first = prompt("first");
    store.insert_prompt(&first, &[]).await.unwrap();
    let (mut holder, mut conn) = (schema.connect().await, connect().await);
    holder
        .execute(raw_sql(
            "BEGIN; SELECT * FROM prompt_engine_prompts FOR UPDATE;
             SELECT * FROM prompt_engine_meta WHERE name = 'price_generation' FOR UPDATE",
        ))
        .await
        .unwrap();
    let changes = (0..4).map(|n| {
        let (store, first) = (store.clone(), first.clone());
        tokio::spawn(async move {
            if n % 2 == 0 {
                store.put_cost_configs(&[], 0).await
            } else {
                let next = Prompt { revision: 2, name: n.to_string(), ..first };
                store.update_prompt(&next, None).await
            }
        })
    });
    let changes: Vec<_> = changes.collect();
    wait_for_waiting(&mut conn, &schema, 4).await;
    holder.execute("COMMIT").await.unwrap();
    let mut won = [0, 0];
    for (n, change) in changes.into_iter().enumerate() {
        match change.await.unwrap() {
            Ok(()) => won[n % 2] += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain()),
        }
    }
    assert_eq!(won, [1, 1]);
    assert_eq!(store.price_generation().await.unwrap(), 1);
}

#[tokio::test]
async fn a_sum_is_of_one_moment() {
    let schema = Schema::new();
    let store = schema.open().await;
    store.append(&batch(1)).await.unwrap();
    let (mut holder, mut conn) = (schema.connect().await, connect().await);
    // It has begun to read when it gets to the changes, and all goes meanwhile.
    let lock = "BEGIN; LOCK TABLE prompt_engine_changes, prompt_engine_llm_executions";
    holder.execute(raw_sql(lock)).await.unwrap();
    let sum = tokio::spawn({
        let store = store.clone();
        async move { total(&store).await }
    });
    wait_for_waiting(&mut conn, &schema, 1).await;
    let delete = "DELETE FROM prompt_engine_usages; DELETE FROM prompt_engine_llm_executions;
        DELETE FROM prompt_engine_changes; COMMIT";
    holder.execute(raw_sql(delete)).await.unwrap();
    let sum = sum.await.unwrap();
    assert_eq!((sum.uses, sum.executions()), (Some(1), 1));
    let sum = total(&store).await;
    assert_eq!((sum.uses, sum.executions()), (Some(0), 0));
}
