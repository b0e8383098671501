//! Cells of a file: that they are there and what an answer reads, damage that the doctor finds and
//! mends, files that were made before there were cells, and a fold that a crash cuts short.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prompt_engine_core::cube::{LOT_CHANGES, cell_of};
use prompt_engine_core::testkit::{at, call};
use prompt_engine_core::{
    Aggregate, AggregateQuery, BucketWidth, Cube, Dimension, Doctor, Filter, Prune, Record,
    RecordStore, Source, TimeRange,
};
use prompt_engine_store_sqlite::{SqliteConfig, SqliteStore};
use rusqlite::Connection;
use tempfile::{TempDir, tempdir};

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(SqliteConfig::new(path)).await.unwrap()
}

/// A store of one call in each of 200 minutes, all of them folded.
async fn folded() -> (TempDir, PathBuf, SqliteStore) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("prompts.db");
    let store = open(&path).await;
    store.append(&calls(200)).await.unwrap();
    while store.fold().await.unwrap().more {}
    (folder, path, store)
}

fn calls(count: i64) -> Vec<Record> {
    let both = |(usage, execution): (_, _)| [Record::Usage(usage), Record::Execution(execution)];
    (0..count).flat_map(|minute| both(call(at(60 * minute)))).collect()
}

/// The answers of all cubes, from cells or from records alone.
async fn answers(store: &SqliteStore, source: Source) -> Vec<Aggregate> {
    use Dimension::{Environment, Model, Prompt};
    let mut answers = Vec::new();
    for group_by in [vec![], vec![Environment], vec![Prompt], vec![Model], vec![Prompt, Model]] {
        let query = AggregateQuery { group_by, source, ..AggregateQuery::default() };
        answers.push(store.aggregate(&query).await.unwrap());
    }
    answers
}

async fn same_answers(store: &SqliteStore) {
    let cells = answers(store, Source::Any).await;
    let records = answers(store, Source::Records).await;
    for (cells, records) in cells.iter().zip(&records) {
        assert_eq!(cells.rows, records.rows);
        assert!(cells.reading.cube.is_some() && records.reading.cube.is_none());
    }
}

#[tokio::test]
async fn an_answer_reads_few_cells_and_no_records() {
    let (_folder, _, store) = folded().await;
    let whole = TimeRange { from: Some(at(0)), to: Some(at(3 * 3_600)) };
    let query = AggregateQuery { range: whole, ..AggregateQuery::default() };
    let answer = store.aggregate(&query).await.unwrap();
    assert_eq!(answer.rows[0].measures.uses, Some(180));
    assert_eq!(answer.reading.cube, Some(Cube::Totals));
    assert_eq!((answer.reading.cells, answer.reading.raw_rows), (3, 0));
    // A ragged end costs the records up to the nearer quarter, a usage and an execution each: those of
    // the first minute, taken away, or those of seven minutes, added; then the first quarter is.
    for (minute, cells, records) in [(1, 3, 2), (8, 3 + 1, 14)] {
        let ragged = TimeRange { from: Some(at(60 * minute)), to: whole.to };
        let query = AggregateQuery { range: ragged, ..AggregateQuery::default() };
        let answer = store.aggregate(&query).await.unwrap();
        assert_eq!(answer.rows[0].measures.uses, Some(180 - minute.unsigned_abs()));
        assert_eq!((answer.reading.cells, answer.reading.raw_rows), (cells, records));
    }
    // No cube has a session.
    let filter = Filter { session: Some("s1".parse().unwrap()), ..Filter::default() };
    let query = AggregateQuery { filter, ..query };
    assert_eq!(store.aggregate(&query).await.unwrap().reading.cube, None);
}

#[tokio::test]
async fn a_lot_that_waits_is_folded_without_being_asked_for() {
    let folder = tempdir().unwrap();
    let store = open(&folder.path().join("prompts.db")).await;
    let lot = i64::try_from(LOT_CHANGES / 2).unwrap();
    store.append(&calls(lot)).await.unwrap();
    // The fold takes the writer before the next append does, or the one after that.
    let mut waiting = LOT_CHANGES;
    for minute in 0..10_000 {
        let (usage, _) = call(at(minute));
        store.append(&[usage.into()]).await.unwrap();
        waiting = store.aggregate(&AggregateQuery::default()).await.unwrap().reading.unfolded;
        if waiting < LOT_CHANGES {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(waiting < LOT_CHANGES);
    same_answers(&store).await;
}

#[tokio::test]
async fn the_doctor_finds_damaged_cells_and_makes_them_anew() {
    let damages = [
        "DELETE FROM prompt_engine_cells WHERE cube = 0",
        "DELETE FROM prompt_engine_cell_durations WHERE width = 2",
        "UPDATE prompt_engine_cells SET sums = (SELECT sums FROM prompt_engine_cells
             WHERE cube = 2 AND width = 1 LIMIT 1) WHERE cube = 2 AND width < 2",
        "UPDATE prompt_engine_cells SET sums = x'0102030405'",
        "UPDATE prompt_engine_cells SET sums = x'07' WHERE width > 0",
        "UPDATE prompt_engine_cells SET sums = x''; DELETE FROM prompt_engine_cell_durations",
    ];
    let mut unreadable = 0;
    for damage in damages {
        let (_folder, path, store) = folded().await;
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(damage).unwrap();
        let doctor = Doctor::new(Arc::new(store.clone()));
        let days = doctor.days(TimeRange::default()).await.unwrap();
        assert_eq!(days.len(), 1);
        let found = doctor.check(days[0]).await.unwrap();
        assert_eq!((found.usages, found.executions), (200, 200));
        if let Err(error) = store.aggregate(&AggregateQuery::default()).await {
            let said = error.chain();
            assert!(said.contains("`doctor --rebuild` makes it anew"), "{said}");
            unreadable += 1;
        }
        assert!(found.differing > 0 && !found.differences.is_empty(), "{damage}");
        // Changes that wait for such a cell are no hindrance.
        let (usage, execution) = call(at(1));
        store.append(&[usage.into(), execution.into()]).await.unwrap();
        doctor.rebuild(days[0]).await.unwrap();
        let healed = doctor.check(days[0]).await.unwrap();
        assert_eq!((healed.differing, healed.differences.len()), (0, 0), "{damage}");
        same_answers(&store).await;
    }
    assert_eq!(unreadable, 4);
}

#[tokio::test]
async fn the_doctor_finds_cells_of_a_day_whose_records_are_gone() {
    for width in BucketWidth::ALL {
        let (_folder, path, store) = folded().await;
        let day = at(400 * 86_400);
        for moment in [day, at(3_000 * 86_400)] {
            let (usage, execution) = call(moment);
            store.append(&[usage.into(), execution.into()]).await.unwrap();
        }
        while store.fold().await.unwrap().more {}
        let connection = Connection::open(&path).unwrap();
        for gone in [
            "DELETE FROM prompt_engine_usages WHERE created_at = ?",
            "DELETE FROM prompt_engine_llm_executions WHERE created_at = ?",
        ] {
            assert_eq!(connection.execute(gone, [day.as_micros()]).unwrap(), 1);
        }
        let others = "DELETE FROM prompt_engine_cells WHERE start = ? AND width <> ?";
        connection.execute(others, (day.as_micros(), width.code())).unwrap();
        let doctor = Doctor::new(Arc::new(store.clone()));
        let days = doctor.days(TimeRange::default()).await.unwrap();
        assert_eq!((days.len(), days[1].from), (3, Some(day)), "{width}");
        let found = doctor.check(days[1]).await.unwrap();
        assert_eq!(found.executions, 0);
        assert!(found.differences.iter().all(|of| of.width == *width) && found.differing > 0);
        doctor.rebuild(days[1]).await.unwrap();
        assert_eq!(doctor.check(days[1]).await.unwrap().differing, 0);
        assert_eq!(doctor.days(TimeRange::default()).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_cell_that_cannot_be_read_is_found_where_no_record_is_and_told_from_an_empty_one() {
    for sums in ["sums", "x'0102'"] {
        finds_a_stray_cell(sums).await;
    }
}

/// Of a day without records, with these sums and without histograms.
async fn finds_a_stray_cell(sums: &str) {
    let (_folder, path, store) = folded().await;
    let (usage, execution) = call(at(400 * 86_400));
    store.append(&[usage.into(), execution.into()]).await.unwrap();
    while store.fold().await.unwrap().more {}
    let stray = at(40 * 86_400).as_micros();
    let copy = format!(
        "INSERT INTO prompt_engine_cells (cube, width, start, lead, sums)
         SELECT cube, width, ?, lead, {sums} FROM prompt_engine_cells
         WHERE cube = 0 AND width = 2 LIMIT 1"
    );
    assert_eq!(Connection::open(&path).unwrap().execute(&copy, [stray]).unwrap(), 1);
    assert!(store.aggregate(&AggregateQuery::default()).await.is_err());
    let doctor = Doctor::new(Arc::new(store.clone()));
    let days = doctor.days(TimeRange::default()).await.unwrap();
    assert_eq!((days.len(), days[1].from), (3, Some(at(40 * 86_400))));
    let found = doctor.check(days[1]).await.unwrap();
    assert_eq!((found.differing, found.differences[0].found.as_ref()), (1, None));
    doctor.rebuild(days[1]).await.unwrap();
    assert_eq!(doctor.check(days[1]).await.unwrap().differing, 0);
    same_answers(&store).await;
}

#[tokio::test]
async fn cells_before_the_horizon_are_never_made_anew() {
    let (_folder, path, store) = folded().await;
    let prune = Prune { payloads_before: None, raw_before: Some(at(5_400)), limit: 1_000 };
    assert!(store.prune(&prune).await.unwrap().done);
    let before = answers(&store, Source::Any).await;
    let cells = |path: &Path| {
        let connection = Connection::open(path).unwrap();
        let mut select = connection
            .prepare("SELECT cube, start, lead, sums FROM prompt_engine_cells WHERE width = 0 AND start < ?")
            .unwrap();
        let rows = select.query_map([at(5_400).as_micros()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        });
        rows.unwrap().collect::<Result<Vec<(i64, i64, Vec<u8>, Vec<u8>)>, _>>().unwrap()
    };
    let old = cells(&path);
    assert!(!old.is_empty());
    let doctor = Doctor::new(Arc::new(store.clone()));
    for day in doctor.days(TimeRange::default()).await.unwrap() {
        assert_eq!(day.from, Some(at(5_400)));
        doctor.rebuild(day).await.unwrap();
        assert_eq!(doctor.check(day).await.unwrap().differing, 0);
    }
    assert_eq!(cells(&path), old);
    let after = answers(&store, Source::Any).await;
    assert!(before.iter().zip(&after).all(|(before, after)| before.rows == after.rows));
}

#[tokio::test]
async fn the_hour_and_the_day_of_the_horizon_must_be_the_sums_of_their_quarters() {
    // Inside the records, and behind them all.
    use BucketWidth::{Day, Hour};
    for (horizon, width) in [(5_400, Hour), (5_400, Day), (15_300, Day)] {
        let (_folder, path, store) = folded().await;
        let prune = Prune { payloads_before: None, raw_before: Some(at(horizon)), limit: 1_000 };
        assert!(store.prune(&prune).await.unwrap().done);
        let doctor = Doctor::new(Arc::new(store.clone()));
        let days = doctor.days(TimeRange::default()).await.unwrap();
        assert_eq!(days.len(), 1);
        assert_eq!(doctor.check(days[0]).await.unwrap().differing, 0);
        let expected = answers(&store, Source::Any).await;
        let damage = "UPDATE prompt_engine_cells SET sums = (SELECT sums FROM prompt_engine_cells
             WHERE cube = 0 AND width = 0 LIMIT 1) WHERE cube = 0 AND width = ? AND start = ?";
        let connection = Connection::open(&path).unwrap();
        let start = cell_of(width, at(horizon)).from;
        assert_eq!(connection.execute(damage, (width.code(), start)).unwrap(), 1);
        let found = doctor.check(days[0]).await.unwrap();
        assert_eq!(found.differing, 1, "{width} of {horizon}");
        assert_eq!(found.differences[0].width, width);
        doctor.rebuild(days[0]).await.unwrap();
        assert_eq!(doctor.check(days[0]).await.unwrap().differing, 0);
        let healed = answers(&store, Source::Any).await;
        assert!(healed.iter().zip(&expected).all(|(healed, right)| healed.rows == right.rows));
    }
}

#[tokio::test]
async fn a_file_from_before_there_were_cells_gets_them() {
    let (_folder, path, store) = folded().await;
    let prune = Prune { payloads_before: None, raw_before: Some(at(900)), limit: 1_000 };
    assert!(store.prune(&prune).await.unwrap().done);
    let records = answers(&store, Source::Records).await;
    drop(store);
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "DROP TABLE prompt_engine_changes; DROP TABLE prompt_engine_cells;
             DROP TABLE prompt_engine_cell_durations;
             DROP TABLE prompt_engine_payload_packs;
             UPDATE prompt_engine_meta SET value = 2 WHERE name = 'schema';
             -- Horizons could lie anywhere then.
             UPDATE prompt_engine_meta SET value = value - 60000000 WHERE name = 'raw_horizon';",
        )
        .unwrap();
    drop(connection);
    let store = open(&path).await;
    assert_eq!(store.raw_horizon().await.unwrap(), Some(at(900)));
    for fold in [false, true] {
        if fold {
            while store.fold().await.unwrap().more {}
        }
        let cells = answers(&store, Source::Any).await;
        assert!(cells.iter().zip(&records).all(|(cells, records)| cells.rows == records.rows));
    }
}

#[tokio::test]
async fn a_fold_that_was_cut_short_is_done_again_from_where_it_began() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("prompts.db");
    let store = open(&path).await;
    store.append(&calls(300)).await.unwrap();
    // Cells that refuse a write in the middle of a fold: what was done of it is taken back.
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "CREATE TRIGGER no_more BEFORE INSERT ON prompt_engine_cells
             WHEN (SELECT count(*) FROM prompt_engine_cells) > 20
             BEGIN SELECT RAISE(ABORT, 'no more'); END;",
        )
        .unwrap();
    assert!(store.fold().await.is_err());
    same_answers(&store).await;
    connection.execute_batch("DROP TRIGGER no_more").unwrap();
    let folded = store.fold().await.unwrap();
    assert_eq!((folded.changes, folded.more), (600, false));
    same_answers(&store).await;
}
