//! What recording costs the caller: every call timed by itself, besides criterion's
//! means. The queue is never full, and in the end the store has every row, or the bench fails.

use std::sync::Arc;
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use prompt_engine_benches::{Call, Calls, Latencies, printed_machine};
use prompt_engine_core::{
    AggregateQuery, MemoryStore, Record, RecordStore, Recorded, Recorder, RecorderConfig, Status,
};
use tokio::runtime::Runtime;

const SEED: u64 = 7;
/// Calls between two flushes: with their pending records about half of the queue.
const BURST: usize = 1_000;
const BURSTS: usize = 20;
/// What a call reserves for its answer.
const RESERVED: usize = 8 * 1024;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime")
}

fn queued(outcome: &Recorded) {
    assert!(matches!(outcome, Recorded::Queued), "{outcome}");
}

/// The store has `calls` usages and as many finished executions.
async fn assert_parity(store: &dyn RecordStore, recorder: &Recorder, calls: u64) {
    recorder.flush().await;
    let rows = store.aggregate(&AggregateQuery::default()).await.expect("an answer").rows;
    let measures = &rows[0].measures;
    assert_eq!(measures.uses, Some(calls));
    assert_eq!(measures.finished(), calls);
    assert_eq!(measures.in_status(Status::Pending), 0);
    let counters = recorder.counters();
    assert_eq!((counters.queued, counters.dropped, counters.refused), (0, 0, 0));
    assert_eq!(counters.queued_bytes, 0);
}

/// Records a call as the engine does: its usage, its pending self, its end by reservation.
/// Times every step, and the whole.
async fn track(recorder: &Recorder, call: Call, single: &mut Latencies, whole: &mut Latencies) {
    let pending = Record::from(call.pending());
    let Call { usage, execution } = call;
    let (usage, execution) = (Record::from(usage), Record::from(execution));
    let start = Instant::now();
    queued(&single.time(|| recorder.record_now(usage)));
    let reservation = recorder.reserve(RESERVED).await.expect("room");
    queued(&single.time(|| recorder.record_now(pending)));
    queued(&single.time(|| reservation.finish(execution)));
    whole.push(start.elapsed());
}

fn timed_one_by_one(runtime: &Runtime) {
    let mut calls = Calls::new(SEED, 100_000);
    for busy in [true, false] {
        let store = Arc::new(MemoryStore::new());
        let (mut single, mut whole) = (Latencies::default(), Latencies::default());
        runtime.block_on(async {
            let recorder = Recorder::new(Arc::<MemoryStore>::clone(&store), RecorderConfig::new());
            for _ in 0..BURSTS {
                let burst: Vec<Call> = calls.by_ref().take(BURST).collect();
                for call in burst {
                    track(&recorder, call, &mut single, &mut whole).await;
                    if !busy {
                        recorder.flush().await;
                    }
                }
                recorder.flush().await;
            }
            let count = u64::try_from(BURST * BURSTS).expect("a small number");
            assert_parity(&*store, &recorder, count).await;
        });
        let name = if busy { "writer busy" } else { "writer woken by every call" };
        let (p50, p99) = single.print(&format!("record_now and finish, {name}"));
        whole.print(&format!("all of a call (3 records, a reservation), {name}"));
        println!("  target: p50 <= 5 µs ({p50:?}), p99 <= 50 µs ({p99:?})");
    }
}

fn bench(c: &mut Criterion) {
    printed_machine(SEED);
    let runtime = runtime();
    timed_one_by_one(&runtime);
    let store = Arc::new(MemoryStore::new());
    let recorder = runtime.block_on(async {
        Recorder::new(Arc::<MemoryStore>::clone(&store), RecorderConfig::new())
    });
    let mut calls = Calls::new(SEED, 1_000_000);
    let mut count = 0;
    c.bench_function("recorder/record_now/call/memory", |b| {
        b.iter_batched(
            || {
                count += 1;
                if count % 1_000 == 0 {
                    runtime.block_on(recorder.flush());
                }
                let call = calls.next().expect("the workload is endless");
                (Record::from(call.usage), Record::from(call.execution))
            },
            |(usage, execution)| {
                queued(&recorder.record_now(usage));
                queued(&recorder.record_now(execution));
            },
            BatchSize::PerIteration,
        );
    });
    runtime.block_on(assert_parity(&*store, &recorder, count));
}

criterion_group! {
    name = benches;
    // The store keeps every row: short times keep it small.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = bench
}
criterion_main!(benches);
