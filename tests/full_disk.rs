//! A file that cannot grow, for each embedded store: the batch that finds no room is refused with a
//! clear error, what was acknowledged stays, and once there is room the store opens and goes on. The
//! parent starts this same program as a child whose files may grow to a limit and no further
//! (`ulimit -f`, with its signal ignored), a different one each round. No harness: the program is both.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and speak")]

mod stores;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use prompt_engine::{ErrorKind, Record, Store, UsageId, open_store, testkit};
use stores::{Place, assert_sound, rounds};

/// Where the limits start, in blocks of 512 bytes: a store that was just made is smaller.
const FIRST: usize = 600;

fn main() {
    if cfg!(not(unix)) {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match std::env::var("PROMPT_ENGINE_FULL_DISK_CHILD") {
        Ok(url) => runtime.block_on(child(&url)),
        Err(_) => {
            for place in [Place::sqlite as fn() -> Place, Place::redb] {
                runtime.block_on(parent(place));
            }
            println!("test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        }
    }
}

fn batch() -> Vec<Record> {
    let mut records = Vec::new();
    for n in 0..20 {
        let (mut usage, execution) = testkit::call(testkit::at(n));
        // No two alike, so that they take the room they should.
        let words: String = (0..40).map(|_| UsageId::new().to_string()).collect();
        Arc::make_mut(usage.payload.as_mut().unwrap()).content = words;
        records.extend([usage.into(), execution.into()]);
    }
    records
}

/// Appends until there is no room, and says what was acknowledged before.
async fn child(url: &str) {
    let store = open_store(url, true).await.unwrap();
    let mut acknowledged = Vec::new();
    let error = loop {
        let batch = batch();
        match store.append(&batch).await {
            Ok(appended) => assert_eq!(appended.stored, 40),
            Err(error) => break error,
        }
        acknowledged.extend(batch);
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    let sentence = error.to_string();
    assert!(sentence.contains("store") && sentence.contains("disk"), "{}", error.chain());
    // What is there can still be read, and what finds no room is refused again.
    assert_all(&*store, &acknowledged).await;
    assert!(store.append(&batch()).await.is_err());
    let mut out = std::io::stdout().lock();
    for record in &acknowledged {
        if let Record::Usage(usage) = record {
            writeln!(out, "{}", usage.id).unwrap();
        }
    }
}

async fn assert_all(store: &dyn Store, records: &[Record]) {
    for record in records {
        match record {
            Record::Usage(usage) => {
                assert_eq!(store.usage(usage.id).await.unwrap().as_ref(), Some(usage));
            }
            Record::Execution(call) => {
                assert_eq!(store.execution(call.id).await.unwrap().as_ref(), Some(call));
            }
        }
    }
}

async fn parent(place: fn() -> Place) {
    let (mut name, mut kept) = ("", 0);
    let rounds = rounds(6, 100);
    for round in 0..rounds {
        let place = place();
        name = place.name;
        drop(open_store(&place.url, true).await.unwrap());
        let limit = FIRST + round * 41;
        let output = Command::new("sh")
            .args(["-c", &format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\"")])
            .arg(std::env::current_exe().unwrap())
            .env("PROMPT_ENGINE_FULL_DISK_CHILD", &place.url)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: room for {limit} blocks");
        let acknowledged = String::from_utf8(output.stdout).unwrap();

        let store = open_store(&place.url, true).await.unwrap();
        let (usages, executions) = assert_sound(&*store).await;
        assert_eq!(usages.len(), executions.len(), "half a batch is there");
        assert!(usages.len() % 20 == 0 && usages.len() >= acknowledged.lines().count());
        for id in acknowledged.lines() {
            let found = store.usage(id.parse().unwrap()).await.unwrap();
            assert!(found.is_some(), "{name}: {id} was acknowledged");
        }
        assert_eq!(store.append(&batch()).await.unwrap().stored, 40);
        kept += usages.len();
    }
    println!("{name}: {rounds} files that could not grow, {kept} calls kept, none lost");
}
