//! What a recorder promises, against a store that can be held, broken and made to panic.
//! Nothing here waits for time to pass: gates, and tokio's paused clock.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;

use super::*;
use crate::aggregate::{Aggregate, AggregateQuery};
use crate::cost::Cost;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ExecutionId, PromptId, UsageId};
use crate::label::Label;
use crate::llm::Message;
use crate::pruned::PrunedSums;
use crate::query::{Filter, Page, RecordQuery};
use crate::record::{Attribution, ExecutionPayload, LlmExecution, Usage, UsagePayload};
use crate::status::Status;
use crate::store::{
    Appended, CostRevision, Folded, PastCost, Prune, Pruned, Rebuild, Rebuilt, Restored, Revised,
};
use crate::time::{TimeRange, Timestamp};

type Fault = Box<dyn Fn(usize, &[Record]) -> Option<Error> + Send + Sync>;

/// Keeps records in order; an append first passes the gate, then the fault.
struct Fake {
    gate: Semaphore,
    entered: watch::Sender<usize>,
    fault: Fault,
    attempts: AtomicUsize,
    stored: Mutex<Vec<Record>>,
    batches: Mutex<Vec<usize>>,
}

impl Fake {
    fn with(permits: usize, fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(permits),
            entered: watch::channel(0).0,
            fault,
            attempts: AtomicUsize::new(0),
            stored: Mutex::default(),
            batches: Mutex::default(),
        })
    }

    fn open() -> Arc<Self> {
        Self::with(Semaphore::MAX_PERMITS, Box::new(|_, _| None))
    }

    /// No append comes through before [`Fake::release`].
    fn gated() -> Arc<Self> {
        Self::with(0, Box::new(|_, _| None))
    }

    fn faulty(
        fault: impl Fn(usize, &[Record]) -> Option<Error> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::with(Semaphore::MAX_PERMITS, Box::new(fault))
    }

    fn release(&self) {
        self.gate.add_permits(1_000_000);
    }

    /// Waits until `count` appends have come to the gate.
    async fn entered(&self, count: usize) {
        self.entered.subscribe().wait_for(|n| *n >= count).await.expect("the store lives");
    }

    fn names(&self) -> Vec<String> {
        self.stored().iter().map(Record::name).collect()
    }

    fn stored(&self) -> Vec<Record> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn batches(&self) -> Vec<usize> {
        self.batches.lock().expect("no panic under this lock").clone()
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

fn unused<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "a recorder only appends"))
}

#[async_trait]
impl RecordStore for Fake {
    async fn append(&self, records: &[Record]) -> Result<Appended> {
        self.entered.send_modify(|n| *n += 1);
        self.gate.acquire().await.expect("the gate is never closed").forget();
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = (self.fault)(attempt, records) {
            return Err(error);
        }
        self.batches.lock().expect("no panic under this lock").push(records.len());
        self.stored.lock().expect("no panic under this lock").extend_from_slice(records);
        Ok(Appended { stored: records.len() as u64, unchanged: 0 })
    }

    async fn aggregate(&self, _: &AggregateQuery) -> Result<Aggregate> {
        unused()
    }
    async fn fold(&self) -> Result<Folded> {
        unused()
    }
    async fn rebuild(&self, _: Rebuild) -> Result<Rebuilt> {
        unused()
    }
    async fn restore(&self, _: &[PrunedSums]) -> Result<Restored> {
        unused()
    }
    async fn usage(&self, _: UsageId) -> Result<Option<Usage>> {
        unused()
    }
    async fn execution(&self, _: ExecutionId) -> Result<Option<LlmExecution>> {
        unused()
    }
    async fn list_usages(&self, _: &RecordQuery) -> Result<Page<Usage>> {
        unused()
    }
    async fn list_executions(&self, _: &RecordQuery) -> Result<Page<LlmExecution>> {
        unused()
    }
    async fn slowest_executions(
        &self,
        _: &TimeRange,
        _: &Filter,
        _: u32,
    ) -> Result<Vec<LlmExecution>> {
        unused()
    }
    async fn revise_costs(&self, _: &[CostRevision]) -> Result<Vec<Revised>> {
        unused()
    }
    async fn past_costs(&self, _: &[ExecutionId]) -> Result<Vec<Vec<PastCost>>> {
        unused()
    }
    async fn prune(&self, _: &Prune) -> Result<Pruned> {
        unused()
    }
    async fn compact(&self) -> Result<()> {
        unused()
    }
    async fn raw_horizon(&self) -> Result<Option<Timestamp>> {
        unused()
    }
}

fn attribution() -> Attribution {
    Attribution {
        prompt: PromptId::new(),
        version: 1,
        environment: Label::new("test").expect("a label"),
        session: None,
        user: None,
    }
}

fn moment() -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000).expect("a moment")
}

fn usage(content: impl Into<String>) -> Record {
    let payload = UsagePayload { content: content.into(), ..UsagePayload::default() };
    Usage {
        id: UsageId::new(),
        attribution: attribution(),
        created_at: moment(),
        payload: Some(payload.into()),
    }
    .into()
}

fn content(record: &Record) -> &str {
    match record {
        Record::Usage(Usage { payload: Some(payload), .. }) => &payload.content,
        other => panic!("{} has no content", other.name()),
    }
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "the store is down")
}

fn recorder(store: &Arc<Fake>, config: RecorderConfig) -> Recorder {
    Recorder::new(Arc::<Fake>::clone(store), config)
}

fn durable() -> RecorderConfig {
    RecorderConfig::new().with_mode(Mode::Durable)
}

/// A full queue: one record under way at the gate and no room for another of its size.
async fn full(store: &Arc<Fake>, config: RecorderConfig) -> Recorder {
    let recorder = recorder(store, config.with_queue_bytes(4_096));
    assert!(matches!(recorder.record_now(usage("x".repeat(2_000))), Recorded::Queued));
    store.entered(1).await;
    recorder
}

#[tokio::test]
async fn a_buffered_caller_returns_while_the_store_is_blocked() {
    let store = Fake::gated();
    let recorder = recorder(&store, RecorderConfig::new());
    assert!(matches!(recorder.record(usage("a")).await, Recorded::Queued));
    store.entered(1).await;
    assert!(matches!(recorder.record(usage("b")).await, Recorded::Queued));
    let counters = recorder.counters();
    assert_eq!((counters.queued, counters.committed), (2, 0));
    assert!(counters.queued_bytes > 0);
    store.release();
    recorder.flush().await;
    let counters = recorder.counters();
    assert_eq!((counters.queued, counters.committed, counters.queued_bytes), (0, 2, 0));
}

#[tokio::test]
async fn what_gathers_during_a_commit_commits_together_and_in_order() {
    let store = Fake::gated();
    let recorder = recorder(&store, RecorderConfig::new());
    let records: Vec<Record> = (0..100).map(|i| usage(i.to_string())).collect();
    let names: Vec<String> = records.iter().map(Record::name).collect();
    let mut records = records.into_iter();
    let _ = recorder.record_now(records.next().expect("a first"));
    store.entered(1).await;
    for record in records {
        let _ = recorder.record_now(record);
    }
    store.release();
    recorder.flush().await;
    assert_eq!(store.batches(), [1, 99]);
    assert_eq!(store.names(), names);
}

#[tokio::test]
async fn batches_are_bounded_in_records_and_bytes() {
    let store = Fake::open();
    let config = RecorderConfig::new().with_batch_records(3).with_batch_bytes(10_000);
    let recorder = recorder(&store, config);
    for text in ["a", "b", "c", "d"] {
        let _ = recorder.record_now(usage(text));
    }
    for _ in 0..3 {
        let _ = recorder.record_now(usage("x".repeat(8_000)));
    }
    recorder.flush().await;
    assert_eq!(store.batches(), [3, 2, 1, 1]);
}

fn call(id: ExecutionId) -> LlmExecution {
    let label = |text| Label::new(text).expect("a label");
    let (provider, model) = (label("openai"), label("gpt-4o"));
    LlmExecution::pending(id, UsageId::new(), attribution(), provider, model, moment())
}

fn ended(pending: &LlmExecution) -> LlmExecution {
    LlmExecution {
        status: Status::Success,
        completed_at: Some(moment()),
        cost: Some(Cost::LocalCache),
        ..pending.clone()
    }
}

#[tokio::test]
async fn a_call_that_ended_before_it_was_stored_is_written_once_and_counted_twice() {
    let store = Fake::gated();
    let recorder = recorder(&store, RecorderConfig::new());
    let _ = recorder.record_now(usage("first"));
    store.entered(1).await;
    let (open, over) = (call(ExecutionId::new()), call(ExecutionId::new()));
    let over_ended = ended(&over);
    for record in [open.clone().into(), over.into(), usage("x"), over_ended.clone().into()] {
        let _ = recorder.record_now(record);
    }
    store.release();
    recorder.flush().await;
    let stored = store.stored();
    assert_eq!([&stored[1], &stored[3]], [&open.into(), &over_ended.into()]);
    assert_eq!(stored.len(), 4);
    let counters = recorder.counters();
    assert_eq!((counters.queued, counters.committed, counters.queued_bytes), (0, 5, 0));
}

#[tokio::test]
async fn a_call_whose_end_is_refused_is_stored_as_it_was_sent() {
    let refused = |record: &Record| matches!(record, Record::Execution(e) if e.status.is_final());
    let store = Fake::faulty(move |_, records| {
        records.iter().any(refused).then(|| Error::invalid("no ends here"))
    });
    let recorder = recorder(&store, RecorderConfig::new());
    let sent = call(ExecutionId::new());
    let _ = recorder.record_now(sent.clone().into());
    let _ = recorder.record_now(ended(&sent).into());
    recorder.flush().await;
    assert_eq!(store.stored(), [sent.into()]);
    let counters = recorder.counters();
    assert_eq!((counters.committed, counters.refused), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_lone_record_is_taken_at_once_and_the_next_within_a_millisecond() {
    let store = Fake::open();
    let recorder = recorder(&store, RecorderConfig::new());
    let start = tokio::time::Instant::now();
    let settled = || async {
        for _ in 0..100 {
            tokio::task::yield_now().await; // the clock stands still meanwhile
        }
        store.stored().len()
    };
    let _ = recorder.record_now(usage("a"));
    assert_eq!(settled().await, 1);
    let _ = recorder.record_now(usage("b"));
    assert_eq!(settled().await, 1, "its caller woke nobody");
    store.entered(2).await;
    assert!(start.elapsed() <= Duration::from_millis(2), "{:?}", start.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let _ = recorder.record_now(usage("c"));
    assert_eq!(settled().await, 3, "it is lone again");
    let (flushed, _) = (tokio::time::Instant::now(), recorder.record_now(usage("d")));
    recorder.flush().await;
    assert_eq!((store.stored().len(), flushed.elapsed()), (4, Duration::ZERO));
}

#[tokio::test]
async fn a_full_queue_sheds_and_counts_and_a_reservation_still_finishes() {
    let store = Fake::gated();
    let recorder = recorder(&store, RecorderConfig::new().with_queue_bytes(8_192));
    let reservation = recorder.reserve(4_096).await.expect("room");
    assert_eq!(recorder.counters().queued_bytes, 4_096);
    assert!(matches!(recorder.record_now(usage("x".repeat(2_000))), Recorded::Queued));
    let shed = recorder.record(usage("y".repeat(2_000))).await;
    assert!(matches!(shed, Recorded::Dropped(DropReason::QueueFull)), "{shed}");
    let refused = recorder.reserve(4_096).await;
    assert!(matches!(refused, Err(DropReason::QueueFull)));
    assert!(matches!(reservation.finish(usage("z".repeat(2_000))), Recorded::Queued));
    store.release();
    recorder.flush().await;
    let counters = recorder.counters();
    assert_eq!((counters.committed, counters.dropped, counters.queued_bytes), (2, 1, 0));
    assert_eq!(content(&store.stored()[1]), "z".repeat(2_000));
}

#[tokio::test]
async fn an_unused_reservation_gives_its_room_back() {
    let recorder = recorder(&Fake::open(), RecorderConfig::new());
    let reservation = recorder.reserve(1).await.expect("room");
    assert_eq!(reservation.bytes(), Reservation::MIN_BYTES);
    drop(reservation);
    assert_eq!(recorder.counters().queued_bytes, 0);
}

#[tokio::test]
async fn blocking_waits_for_room() {
    let store = Fake::gated();
    let recorder = full(&store, RecorderConfig::new().with_overload(Overload::Block)).await;
    let mut waiting = std::pin::pin!(recorder.record(usage("y".repeat(2_000))));
    assert!(futures::poll!(&mut waiting).is_pending());
    store.release();
    assert!(matches!(waiting.await, Recorded::Queued));
    recorder.flush().await;
    assert_eq!(recorder.counters().committed, 2);
}

#[tokio::test]
async fn closing_sends_blocked_callers_away() {
    let store = Fake::gated();
    let recorder = full(&store, RecorderConfig::new().with_overload(Overload::Block)).await;
    let mut waiting = std::pin::pin!(recorder.record(usage("y".repeat(2_000))));
    assert!(futures::poll!(&mut waiting).is_pending());
    store.release();
    let (unsaved, sent_away) = tokio::join!(recorder.shutdown(Duration::from_secs(1)), waiting);
    assert_eq!(unsaved, 0);
    assert!(matches!(sent_away, Recorded::Dropped(DropReason::ShutDown)), "{sent_away}");
}

#[tokio::test]
async fn a_payload_beyond_its_reservation_grows_where_there_is_room_and_is_cut_where_not() {
    let store = Fake::gated();
    let recorder = recorder(&store, RecorderConfig::new().with_queue_bytes(16_384));
    let large = recorder.reserve(2_048).await.expect("room");
    let cut = recorder.reserve(2_048).await.expect("room");
    let _ = large.finish(usage("ü".repeat(5_000)));
    let _ = cut.finish(usage("ü".repeat(5_000)));
    assert!(recorder.counters().queued_bytes <= 16_384);
    store.release();
    recorder.flush().await;
    let stored = store.stored();
    assert_eq!(content(&stored[0]), "ü".repeat(5_000));
    let text = content(&stored[1]);
    let kept = text.find('…').expect("a mark");
    assert_eq!(text, format!("{}…[cut: {} bytes]", "ü".repeat(kept / 2), 10_000 - kept));
    assert!(kept > 1_000, "as much is kept as fits: {kept}");
    assert_eq!(recorder.counters().queued_bytes, 0);
}

#[test]
fn a_cut_keeps_short_texts_and_all_that_is_counted() {
    let mut execution = LlmExecution::pending(
        ExecutionId::new(),
        UsageId::new(),
        attribution(),
        Label::new("openai").expect("a label"),
        Label::new("gpt-4o").expect("a label"),
        moment(),
    );
    execution.payload = Some(Arc::new(ExecutionPayload {
        messages_sent: [Message::system("be brief"), Message::user("q".repeat(50_000))].into(),
        response_content: Some("a".repeat(40_000)),
        response_metadata: Map::from_iter([("id".to_owned(), json!("r".repeat(30_000)))]),
        ..ExecutionPayload::default()
    }));
    let whole = Record::from(execution);
    let mut record = whole.clone();
    cut::cut(&mut record, 8_192);
    assert!(weight(&record) <= 8_192 && weight(&record) > 7_500, "{}", weight(&record));
    let Record::Execution(LlmExecution { payload: Some(payload), .. }) = &record else {
        panic!("the payload is cut, not gone")
    };
    assert_eq!(payload.messages_sent[0], Message::system("be brief"));
    for text in [
        payload.messages_sent[1].content.as_str(),
        payload.response_content.as_deref().expect("a response"),
        payload.response_metadata["id"].as_str().expect("a text"),
    ] {
        assert!(text.ends_with(" bytes]") && text.len() > 2_000, "{}", text.len());
    }
    let mut same = whole.clone();
    cut::cut(&mut same, usize::MAX);
    assert_eq!(same, whole);
}

#[test]
fn a_map_of_many_small_values_is_cut_as_a_whole_and_marked() {
    let many: Map<String, Value> = (0..5_000).map(|i| (format!("k{i}"), json!(i))).collect();
    let payload =
        UsagePayload { parameters: many, content: "kept".into(), ..UsagePayload::default() };
    let Record::Usage(mut usage) = usage("") else { panic!("a usage") };
    usage.payload = Some(payload.into());
    let mut record = Record::from(usage);
    cut::cut(&mut record, Reservation::MIN_BYTES);
    assert!(weight(&record) <= Reservation::MIN_BYTES);
    assert_eq!(content(&record), "kept");
    let Record::Usage(Usage { payload: Some(payload), .. }) = &record else { panic!("a payload") };
    assert!(payload.parameters["cut"].as_str().expect("a mark").starts_with("…[cut: "));
}

#[test]
fn any_payload_can_be_cut_to_the_least_reservation() {
    let messages = (0..2_000).map(|i| Message::user(i.to_string())).collect();
    let mut execution = LlmExecution::pending(
        ExecutionId::new(),
        UsageId::new(),
        attribution(),
        Label::new("openai").expect("a label"),
        Label::new("gpt-4o").expect("a label"),
        moment(),
    );
    execution.payload =
        Some(Arc::new(ExecutionPayload { messages_sent: messages, ..ExecutionPayload::default() }));
    let mut record = Record::from(execution);
    cut::cut(&mut record, Reservation::MIN_BYTES - TICKET_BYTES);
    assert!(weight(&record) <= Reservation::MIN_BYTES - TICKET_BYTES);
}

#[tokio::test]
async fn a_record_larger_than_the_queue_is_cut_to_it() {
    let store = Fake::open();
    let recorder = recorder(&store, RecorderConfig::new().with_queue_bytes(4_096));
    assert!(matches!(recorder.record_now(usage("x".repeat(1_000_000))), Recorded::Queued));
    recorder.flush().await;
    assert!(content(&store.stored()[0]).ends_with(" bytes]"));
}

#[tokio::test(start_paused = true)]
async fn retryable_failures_are_retried_until_all_is_stored_once() {
    let store = Fake::faulty(|attempt, _| (attempt < 20).then(down));
    let recorder = recorder(&store, RecorderConfig::new());
    let start = tokio::time::Instant::now();
    for i in 0..10 {
        assert!(matches!(recorder.record(usage(i.to_string())).await, Recorded::Queued));
    }
    recorder.flush().await;
    assert_eq!(store.stored().len(), 10);
    // 10 + 20 + … + 640 ms, then 13 times one second.
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(14_270) && waited < Duration::from_secs(15));
    assert_eq!(recorder.counters().refused, 0);
}

#[tokio::test]
async fn one_offender_among_a_thousand_is_refused_alone() {
    let records: Vec<Record> = (0..1_000).map(|i| usage(i.to_string())).collect();
    let offender = records[637].name();
    let bad = offender.clone();
    let store = Fake::faulty(move |_, records| {
        let found = records.iter().find(|record| record.name() == bad)?;
        Some(Error::invalid(format!("{}: it is bad", found.name())))
    });
    let recorder = recorder(&store, durable());
    let calls = records.into_iter().map(|record| {
        let recorder = recorder.clone();
        async move { (record.name(), recorder.record(record).await) }
    });
    for (name, outcome) in futures::future::join_all(calls).await {
        match outcome {
            Recorded::Committed => assert_ne!(name, offender),
            Recorded::Dropped(DropReason::Refused(error)) => {
                assert_eq!(name, offender);
                assert_eq!(error.kind(), ErrorKind::Invalid);
                assert!(error.to_string().contains(&offender));
            }
            other => panic!("{name}: {other}"),
        }
    }
    let counters = recorder.counters();
    assert_eq!((counters.committed, counters.refused, counters.queued_bytes), (999, 1, 0));
    let names = store.names();
    assert_eq!(names.len(), 999);
    assert!(!names.contains(&offender));
}

#[tokio::test]
async fn a_store_that_panics_loses_only_the_record_that_makes_it_panic() {
    let records: Vec<Record> = (0..8).map(|i| usage(i.to_string())).collect();
    let bad = records[3].name();
    let store = Fake::faulty(move |_, records| {
        assert!(records.iter().all(|record| record.name() != bad), "on purpose");
        None
    });
    let recorder = recorder(&store, RecorderConfig::new());
    for record in records {
        let _ = recorder.record_now(record);
    }
    recorder.flush().await;
    let counters = recorder.counters();
    assert_eq!((counters.committed, counters.refused), (7, 1));
    assert!(matches!(recorder.record(usage("after")).await, Recorded::Queued));
    assert_eq!(recorder.shutdown(Duration::from_secs(1)).await, 0);
    assert_eq!(store.stored().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_over_a_dead_store_returns_what_was_not_saved() {
    let store = Fake::faulty(|_, _| Some(down()));
    let recorder = recorder(&store, RecorderConfig::new());
    for i in 0..7 {
        let _ = recorder.record_now(usage(i.to_string()));
    }
    assert_eq!(recorder.shutdown(Duration::from_secs(3)).await, 7);
    assert_eq!(recorder.shutdown(Duration::from_secs(3)).await, 7);
    let after = recorder.record(usage("late")).await;
    assert!(matches!(after, Recorded::Dropped(DropReason::ShutDown)), "{after}");
    recorder.flush().await;
    assert_eq!(recorder.counters().dropped, 1);
}

#[tokio::test(start_paused = true)]
async fn shutting_down_over_a_store_that_hangs_returns_too() {
    let store = Fake::gated();
    let recorder = recorder(&store, RecorderConfig::new());
    let _ = recorder.record_now(usage("a"));
    assert_eq!(recorder.shutdown(Duration::from_secs(3)).await, 1);
}

#[tokio::test]
async fn a_reservation_is_served_while_the_queue_drains() {
    let store = Fake::gated();
    let recorder = recorder(&store, RecorderConfig::new());
    let _ = recorder.record_now(usage("a"));
    let reservation = recorder.reserve(4_096).await.expect("room");
    store.entered(1).await;
    let mut shutdown = std::pin::pin!(recorder.shutdown(Duration::from_secs(60)));
    assert!(futures::poll!(&mut shutdown).is_pending());
    assert!(recorder.record_now(usage("new")).is_dropped());
    assert!(matches!(reservation.finish(usage("b")), Recorded::Queued));
    store.release();
    assert_eq!(shutdown.await, 0);
    assert_eq!(store.stored().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_durable_caller_hears_of_its_commit_or_that_it_waits() {
    let store = Fake::gated();
    let recorder = recorder(&store, durable());
    let start = tokio::time::Instant::now();
    assert!(matches!(recorder.record(usage("a")).await, Recorded::Queued));
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    let reservation = recorder.reserve(4_096).await.expect("room");
    store.release();
    assert!(matches!(recorder.record(usage("b")).await, Recorded::Committed));
    assert!(matches!(reservation.finish_durable(usage("c")).await, Recorded::Committed));
    assert!(matches!(recorder.record_now(usage("d")), Recorded::Queued));
    assert_eq!(recorder.shutdown(Duration::from_secs(1)).await, 0);
    assert_eq!(store.stored().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_durable_caller_that_is_never_served_is_told_of_the_shutdown() {
    let store = Fake::faulty(|_, _| Some(down()));
    let recorder = recorder(&store, durable().with_commit_timeout(Duration::from_secs(60)));
    let (outcome, unsaved) =
        tokio::join!(recorder.record(usage("a")), recorder.shutdown(Duration::from_secs(1)));
    assert!(matches!(outcome, Recorded::Dropped(DropReason::ShutDown)), "{outcome}");
    assert_eq!(unsaved, 1);
    assert_eq!(outcome.check().expect_err("an error").kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_writer_goes_on_after_the_last_handle_which_warns() {
    let store = Fake::gated();
    let recorder = recorder(&store, RecorderConfig::new());
    let _ = recorder.record_now(usage("a"));
    let _ = recorder.record_now(usage("b"));
    let mut settled = recorder.handle.settled.clone();
    let warnings = Warnings::default();
    let seen = Arc::clone(&warnings.0);
    tracing::subscriber::with_default(warnings, || {
        drop(recorder.clone());
        assert_eq!(seen.lock().expect("no panic").len(), 0, "another handle lives");
        drop(recorder);
    });
    let seen = seen.lock().expect("no panic").clone();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].contains("unsaved=2"), "{seen:?}");
    store.release();
    while settled.changed().await.is_ok() {}
    assert_eq!(store.stored().len(), 2);
}

#[test]
fn a_recorder_without_a_runtime_drops_instead_of_panicking() {
    let recorder = recorder(&Fake::open(), RecorderConfig::new());
    let outcome = recorder.record_now(usage("a"));
    assert!(matches!(outcome, Recorded::Dropped(DropReason::ShutDown)), "{outcome}");
}

#[test]
fn a_recorder_whose_runtime_ended_drops_and_keeps_the_count() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let store = Fake::gated();
    let recorder = runtime.block_on(async { recorder(&store, RecorderConfig::new()) });
    let _ = recorder.record_now(usage("a"));
    drop(runtime);
    assert!(recorder.record_now(usage("b")).is_dropped());
    let counters = recorder.counters();
    assert_eq!((counters.queued, counters.dropped), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_of_two_thousand_callers_is_stored_once_and_each_callers_in_order() {
    let store = Fake::faulty(|attempt, _| (attempt % 5 == 4).then(down));
    let recorder = recorder(&store, durable().with_commit_timeout(Duration::from_secs(600)));
    let callers: Vec<_> = (0..2_000)
        .map(|caller| {
            let recorder = recorder.clone();
            tokio::spawn(async move {
                let mut names = Vec::new();
                for turn in 0..3 {
                    let record = usage(format!("{caller} {turn}"));
                    names.push(record.name());
                    let outcome = if turn == 0 {
                        recorder.record_now(record)
                    } else {
                        recorder.record(record).await
                    };
                    assert!(!outcome.is_dropped(), "{outcome}");
                }
                names
            })
        })
        .collect();
    let mut expected = Vec::new();
    for caller in callers {
        expected.push(caller.await.expect("a caller"));
    }
    recorder.flush().await;
    let stored = store.names();
    assert_eq!(stored.len(), 6_000);
    let place: HashMap<&String, usize> = stored.iter().enumerate().map(|(i, n)| (n, i)).collect();
    assert_eq!(place.len(), 6_000);
    for names in &expected {
        assert!(names.is_sorted_by_key(|name| place[name]));
    }
    assert_eq!(recorder.counters().queued_bytes, 0);
}

/// Collects the fields of warnings: as much of a subscriber as a test needs.
#[derive(Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn fmt::Debug| {
            line.push_str(&format!("{field}={value:?} "));
        });
        self.0.lock().expect("no panic under this lock").push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
