//! A hundred thousand recorded calls are priced again after a price was corrected: previewed, killed
//! half-way, taken up by two at once, and recounted. The parent starts this same program as the
//! child that it kills. No harness: the program is both.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use prompt_engine::{
    AggregateQuery, Attribution, CostConfig, ExecutionId, Label, LlmExecution, PageQuery,
    PriceBook, PriceRequest, PromptEngine, PromptId, Rates, Record, RecordQuery, Status, TimeRange,
    Timestamp, TokenCounts, UsageId,
};

const CALLS: u64 = 100_000;
const BATCH: u64 = 2_000;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::var("PROMPT_ENGINE_REPRICE_CHILD") {
        Ok(path) => runtime.block_on(child(Path::new(&path))),
        Err(_) => runtime.block_on(parent()),
    }
}

async fn open(path: &Path) -> PromptEngine {
    let url = format!("sqlite://{}", path.display());
    PromptEngine::connect_with(&url, PromptEngine::builder().durable()).await.unwrap()
}

async fn child(path: &Path) {
    open(path).await.reprice(TimeRange::all()).apply().await.unwrap();
}

/// The price that was set wrong at first, or the right one, since ever.
fn price(input: i64) -> CostConfig {
    let (provider, model) = (Label::new("house").unwrap(), Label::new("model").unwrap());
    let rates = Rates { input: Some(input.into()), output: Some(10.into()), ..Rates::default() };
    CostConfig { rates, ..CostConfig::new(provider, model) }
}

/// The `n`th call: two in three are of the model whose price changes, one is of another.
fn call(n: u64, of: &Attribution, book: &PriceBook) -> LlmExecution {
    let (provider, model) =
        if n.is_multiple_of(3) { ("openai", "gpt-4o") } else { ("house", "model") };
    let at =
        Timestamp::from_micros(1_760_000_000_000_000 + i64::try_from(n).unwrap() * 1_000).unwrap();
    let counts = TokenCounts { input: n % 7_919, output: n % 101, ..TokenCounts::default() };
    let tokens = counts.check().unwrap();
    let quote = book.price(&PriceRequest {
        provider,
        model,
        response_model: None,
        at,
        tokens: Some(&tokens),
        service_tier: None,
    });
    let label = |text| Label::new(text).unwrap();
    let pending = LlmExecution::pending(
        ExecutionId::new(),
        UsageId::new(),
        of.clone(),
        label(provider),
        label(model),
        at,
    );
    LlmExecution {
        status: Status::Success,
        tokens: Some(tokens),
        cost: Some(quote.cost),
        priced_model: quote.priced_model.cloned(),
        completed_at: Some(at),
        ..pending
    }
}

/// What all calls cost together, by the rule of the prices and not by the store.
fn expected_pico(input: i128) -> i128 {
    let of = |n: u64| {
        let (tokens, output) = (i128::from(n % 7_919), i128::from(n % 101));
        let rate = if n.is_multiple_of(3) { 2_500_000 } else { input * 1_000_000 };
        tokens * rate + output * 10_000_000
    };
    (0..CALLS).map(of).sum()
}

async fn sum(engine: &PromptEngine) -> i128 {
    let rows = engine.store().aggregate(&AggregateQuery::default()).await.unwrap().rows;
    assert_eq!((rows[0].measures.priced, rows[0].measures.unpriced), (CALLS, 0));
    rows[0].measures.cost_pico
}

/// The sum of all calls read one by one, and how many of them have the price `input`.
async fn recount(engine: &PromptEngine, input: i128) -> (i128, u64) {
    let mut query =
        RecordQuery { page: PageQuery { limit: 5_000, after: None }, ..Default::default() };
    let (mut sum, mut priced_so) = (0, 0);
    loop {
        let page = engine.store().list_executions(&query).await.unwrap();
        for call in &page.items {
            let pico = call.cost.unwrap().usd().unwrap().to_pico();
            let tokens = call.tokens.unwrap();
            let by_input = i128::from(tokens.input) * input * 1_000_000;
            let so = &*call.provider == "house"
                && tokens.input > 0
                && pico == by_input + i128::from(tokens.output) * 10_000_000;
            sum += pico;
            priced_so += u64::from(so);
        }
        query.page.after = page.next;
        if query.page.after.is_none() {
            return (sum, priced_so);
        }
    }
}

async fn parent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repriced.db");
    let engine = open(&path).await;
    engine.prices().set(price(1)).await.unwrap();
    let attribution = Attribution {
        prompt: PromptId::new(),
        version: 1,
        environment: Label::new("production").unwrap(),
        session: None,
        user: None,
    };
    let book = engine.price_book();
    for start in (0..CALLS).step_by(usize::try_from(BATCH).unwrap()) {
        let batch = (start..start + BATCH).map(|n| Record::from(call(n, &attribution, &book)));
        engine.store().append(&batch.collect::<Vec<_>>()).await.unwrap();
    }
    assert_eq!(sum(&engine).await, expected_pico(1));
    let changing = (0..CALLS).filter(|n| n % 3 != 0 && n % 7_919 != 0).count() as u64;

    engine.prices().set(price(4)).await.unwrap();
    let started = Instant::now();
    let preview = engine.reprice(TimeRange::all()).preview().await.unwrap();
    let preview_took = started.elapsed();
    assert_eq!((preview.calls, preview.total.calls, preview.skipped), (CALLS, changing, 0));
    let more = preview.total.after.pico - preview.total.before.pico;
    assert_eq!(more, expected_pico(4) - expected_pico(1));
    assert_eq!(preview.models.len(), 1, "only one model changes");
    assert_eq!(sum(&engine).await, expected_pico(1), "a preview changes nothing");

    let half_way = killed_half_way(&engine, &path).await;
    let (recounted, changed) = recount(&engine, 4).await;
    assert_eq!(sum(&engine).await, recounted);
    assert!(changed > 0 && changed < changing, "{changed} of {changing} when it was killed");

    // Two take it up at once, each from a process's own view of the file.
    let other = open(&path).await;
    let started = Instant::now();
    let [mine, theirs] = [&engine, &other].map(|engine| engine.reprice(TimeRange::all()));
    let (one, two) = tokio::join!(mine.apply(), theirs.apply());
    let apply_took = started.elapsed();
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.total.calls + two.total.calls + changed, changing, "each call is changed once");
    let again = engine.reprice(TimeRange::all()).apply().await.unwrap();
    assert_eq!((again.total.calls, again.skipped), (0, 0), "nothing is left");
    assert_eq!(sum(&engine).await, expected_pico(4));
    assert_eq!(recount(&engine, 4).await.0, expected_pico(4));

    let query = RecordQuery { page: PageQuery { limit: 50, after: None }, ..Default::default() };
    for call in engine.store().list_executions(&query).await.unwrap().items {
        let past = engine.store().past_costs(&[call.id]).await.unwrap().concat();
        let tokens = call.tokens.unwrap();
        let changed = &*call.provider == "house" && tokens.input > 0;
        assert_eq!(!past.is_empty(), changed, "what was changed has a past cost, and only that");
    }
    println!(
        "reprice: {CALLS} calls, preview {preview_took:?}, killed after {changed} (round {half_way}), \
         the rest by two at once {apply_took:?} ({} and {}, {} skipped)",
        one.total.calls,
        two.total.calls,
        one.skipped + two.skipped
    );
    println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// Starts a child that reprices, and kills it as soon as the sum moves. A child that was through
/// before it was killed is undone, by the price before, and another is started.
async fn killed_half_way(engine: &PromptEngine, path: &Path) -> usize {
    for round in 1..=20 {
        let before = sum(engine).await;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env("PROMPT_ENGINE_REPRICE_CHILD", path)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while sum(engine).await == before {
            assert!(Instant::now() < deadline, "the child changes nothing");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if sum(engine).await != expected_pico(4) {
            return round;
        }
        engine.prices().set(price(1)).await.unwrap();
        engine.reprice(TimeRange::all()).apply().await.unwrap();
        engine.prices().set(price(4)).await.unwrap();
    }
    panic!("no child was killed half-way");
}
