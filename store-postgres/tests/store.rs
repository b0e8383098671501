//! What is PostgreSQL's own: opening, servers that refuse, schemas apart, the view, texts that the
//! server cannot hold as they are. What every store does is in the conformance suite.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod records;
mod server;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use prompt_engine_core::{
    CostConfig, CostStore, Cursor, Error, ErrorKind, LlmExecution, PageQuery, Prompt, PromptId,
    PromptStatus, PromptStore, PromptVersion, Prune, Record, RecordStore,
};
use prompt_engine_store_postgres::{PostgresConfig, PostgresStore};
use sqlx::{AssertSqlSafe, Executor, Row, query, query_scalar, raw_sql};

use records::{at, attribution, finished, pending, usage};
use server::{Schema, connect, url};

const SECRET: &str = "hunter2";

async fn refused(url: &str) -> Error {
    PostgresStore::open(PostgresConfig::from_url(url).unwrap()).await.unwrap_err()
}

/// A server of one connection that says `greeting` once it was greeted, and `verdict` after the
/// next message.
fn fake_server(greeting: Vec<u8>, verdict: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        // Who waits for a server to be ready asks again.
        for conn in listener.incoming() {
            let mut conn: TcpStream = conn.unwrap();
            let mut buffer = [0; 4096];
            let mut said = conn.read(&mut buffer).unwrap();
            // It has no TLS, and goes on without it.
            if buffer[..said].starts_with(&[0, 0, 0, 8]) {
                conn.write_all(b"N").unwrap();
                said = conn.read(&mut buffer).unwrap();
            }
            assert!(said > 0);
            conn.write_all(&greeting).unwrap();
            if !verdict.is_empty() {
                let _ = conn.read(&mut buffer).unwrap();
                conn.write_all(&verdict).unwrap();
            }
        }
    });
    port
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn error_message(code: &str, text: &str) -> Vec<u8> {
    let body = format!("SFATAL\0VFATAL\0C{code}\0M{text}\0\0");
    message(b'E', body.as_bytes())
}

fn asks_for_a_password() -> Vec<u8> {
    message(b'R', &3_u32.to_be_bytes())
}

#[tokio::test]
async fn a_look_for_the_store_makes_nothing() {
    let schema = Schema::new();
    let missing = PostgresStore::missing(&schema.config()).await.unwrap();
    assert!(missing.unwrap().contains(&schema.name));
    let mut conn = server::connect().await;
    let there = "SELECT to_regnamespace($1) IS NOT NULL";
    let made: bool =
        sqlx::query_scalar(there).bind(&schema.name).fetch_one(&mut conn).await.unwrap();
    assert!(!made);
    schema.open().await;
    assert_eq!(PostgresStore::missing(&schema.config()).await.unwrap(), None);
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_shown() {
    let verdict = error_message("28P01", "password authentication failed for user \"app\"");
    let port = fake_server(asks_for_a_password(), verdict);
    let error = refused(&format!("postgres://app:{SECRET}@127.0.0.1:{port}/prompts")).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.chain(),
        format!(
            "the PostgreSQL server at 127.0.0.1:{port} does not let app in: password \
             authentication failed for user \"app\" (SQLSTATE 28P01)"
        )
    );
    assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_full_or_not_ready_is_waited_for_and_then_unavailable() {
    for (code, words) in [("53300", "too many connections"), ("57P03", "not ready yet")] {
        let port = fake_server(error_message(code, "come back later"), Vec::new());
        let url = format!("postgres://app:{SECRET}@127.0.0.1:{port}/x?acquire_timeout_ms=500");
        let error = refused(&url).await;
        assert!(error.is_retryable());
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.chain().contains(&format!("come back later (SQLSTATE {code})")));
        assert!(!error.chain().contains(SECRET) && !format!("{error:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn an_old_server_is_refused_with_its_version() {
    let ready = [
        message(b'R', &0_u32.to_be_bytes()),
        message(b'S', b"server_version\09.6.24\0"),
        message(b'Z', b"I"),
    ];
    let port = fake_server(ready.concat(), Vec::new());
    let error = refused(&format!("postgres://app@127.0.0.1:{port}/x")).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.chain().contains("it is PostgreSQL 9, and this store needs 12"), "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
    let port = fake_server(Vec::new(), Vec::new());
    let url = format!("postgres://app:{SECRET}@127.0.0.1:{port}/x?sslmode=require");
    let error = refused(&url).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.chain().starts_with("no TLS connection to the PostgreSQL server"), "{error:?}");
    assert!(!error.chain().contains(SECRET));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://app:{SECRET}@127.0.0.1:{port}/x?acquire_timeout_ms=50");
    let error = refused(&url).await;
    assert!(error.is_retryable());
    assert!(
        error.chain().contains("cannot be reached: it did not answer within 50ms"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_named_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = Instant::now();
    let error = refused(&format!("postgres://app:{SECRET}@127.0.0.1:{port}/prompts")).await;
    assert!(started.elapsed() < Duration::from_secs(4), "it was waited for");
    assert!(error.is_retryable());
    let words = format!("the PostgreSQL server at 127.0.0.1:{port} cannot be reached");
    assert_eq!(error.to_string(), words);
    assert!(error.chain().contains("refused"), "{}", error.chain());
    assert!(!format!("{error:?}").contains(SECRET));
    let error = refused("postgres://app@localhost/prompts?host=/no/such/folder").await;
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}

#[tokio::test]
async fn an_unknown_database_and_an_unknown_user_are_named() {
    let mut unknown = url();
    unknown.query_pairs_mut().append_pair("dbname", "no_such_database");
    let error = refused(unknown.as_str()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("has no database no_such_database"), "{error}");
    let mut unknown = url();
    unknown.query_pairs_mut().append_pair("user", "no_such_user");
    let error = refused(unknown.as_str()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("does not let no_such_user in"), "{error}");
}

#[tokio::test]
async fn who_may_not_make_tables_is_told_so() {
    let schema = Schema::new();
    let role = schema.name.clone();
    let mut conn = connect().await;
    conn.execute(raw_sql(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN")))).await.unwrap();
    let mut as_role = schema.url();
    as_role.query_pairs_mut().append_pair("user", &role);
    let error = refused(as_role.as_str()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains(&format!("{role} may not do this in")), "{error}");
    assert!(error.chain().contains("permission denied"), "{}", error.chain());
    conn.execute(raw_sql(AssertSqlSafe(format!("DROP ROLE {role}")))).await.unwrap();
}

#[test]
fn urls_say_what_is_wrong_with_them() {
    let url = "postgresql://app:s%2Fe@db:6432/p?schema=llm&sslmode=disable&max_connections=3\
               &acquire_timeout_ms=70&options%5Bgeqo%5D=off";
    let config = PostgresConfig::from_url(url).unwrap();
    assert_eq!(config.schema.as_deref(), Some("llm"));
    assert_eq!((config.max_connections, config.acquire_timeout.as_millis()), (3, 70));
    assert!(!config.url.contains("schema") && config.url.contains("sslmode=disable"));
    let shown = format!("{config:?}");
    assert!(shown.contains("db:6432") && shown.contains("\"p\"") && !shown.contains("s%2Fe"));
    for (parameters, word) in [
        ("?sync=full", "\"sync\""),
        ("?Schema=a", "\"Schema\""),
        ("?options[]=a", "\"options[]\""),
        ("?schema=Llm", "\"Llm\""),
        ("?schema=", "\"\""),
        ("?schema=1a", "\"1a\""),
        ("?schema=a%22b", "a\\\"b"),
        ("?max_connections=0", "max_connections"),
        ("?max_connections=1001", "max_connections"),
        ("?acquire_timeout_ms=-1", "acquire_timeout_ms"),
        ("?sslmode=maybe", "sslmode"),
        ("?port=x", "port"),
    ] {
        let url = format!("postgres://app:{SECRET}@db/p{parameters}");
        let error = PostgresConfig::from_url(&url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(!error.chain().contains(SECRET), "{}", error.chain());
    }
    let socket = PostgresConfig::from_url("postgres:///prompts?host=/run/postgresql").unwrap();
    assert!(format!("{socket:?}").contains("/run/postgresql"), "{socket:?}");
    let long = "a".repeat(64);
    assert!(PostgresConfig::from_url(&format!("postgres://db/p?schema={long}")).is_err());
    assert!(PostgresConfig::from_url(&format!("postgres://db/p?schema={}", &long[1..])).is_ok());
    for url in ["sqlite://a", "postgres:/a", &format!("postgres://app:{SECRET}/x@db/p")] {
        let error = PostgresConfig::from_url(url).unwrap_err();
        assert!(!error.chain().contains(SECRET) && !format!("{error:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn what_was_set_by_hand_is_checked_when_it_is_opened() {
    let config = PostgresConfig::new(url()).with_schema("a\"; DROP TABLE x; --");
    let error = PostgresStore::open(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let config = PostgresConfig::new("postgres://app@db/p?schema=of-the-url");
    let error = PostgresStore::open(config).await.unwrap_err();
    assert!(error.to_string().ends_with("stands with_schema"), "{error}");
    let config = PostgresConfig::new("postgres://app@db/p?acquire_timeout_ms=5");
    let error = PostgresStore::open(config).await.unwrap_err();
    assert!(error.to_string().ends_with("stands with_acquire_timeout"), "{error}");
}

#[tokio::test]
async fn no_text_of_a_store_shows_its_password() {
    let schema = Schema::new();
    let mut with_secret = schema.url();
    with_secret.query_pairs_mut().append_pair("password", SECRET);
    let config = PostgresConfig::from_url(with_secret.as_str()).unwrap();
    assert!(config.url.contains(SECRET) && !format!("{config:?}").contains(SECRET));
    let store = PostgresStore::open(config).await.unwrap();
    let shown = format!("{store:?}");
    assert!(shown.contains(&schema.name) && !shown.contains(SECRET), "{shown}");
    let mut conn = schema.connect().await;
    conn.execute("DROP TABLE prompt_engine_meta").await.unwrap();
    let error = store.price_generation().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(!format!("{error:?} {}", error.chain()).contains(SECRET));
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_versions() {
    let schema = Schema::new();
    drop(schema.open().await);
    let mut conn = schema.connect().await;
    conn.execute("UPDATE prompt_engine_meta SET value = 42 WHERE name = 'schema'").await.unwrap();
    let error = PostgresStore::open(schema.config()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("schema version 42"), "{error}");
    assert!(error.to_string().contains("up to 3"), "{error}");
}

#[tokio::test]
async fn only_the_open_that_makes_the_store_created_it() {
    let schema = Schema::new();
    let opens = (0..10).map(|_| tokio::spawn(PostgresStore::open(schema.config())));
    let mut created = 0;
    for open in opens.collect::<Vec<_>>() {
        created += u32::from(open.await.unwrap().unwrap().created());
    }
    assert_eq!(created, 1);
    assert!(!schema.open().await.created());
}

#[tokio::test]
async fn two_schemas_of_a_database_are_two_stores() {
    let (one, two) = (Schema::new(), Schema::new());
    let (first, second) = (one.open().await, two.open().await);
    assert!(first.created() && second.created());
    let (usage, call) = (usage(1), finished(pending(2)));
    first.append(&[usage.clone().into(), call.clone().into()]).await.unwrap();
    first.put_cost_configs(&[], 0).await.unwrap();
    assert_eq!(second.usage(usage.id).await.unwrap(), None);
    assert_eq!(second.execution(call.id).await.unwrap(), None);
    assert_eq!(second.price_generation().await.unwrap(), 0);
    let prune = Prune { payloads_before: None, raw_before: Some(at(100)), limit: 10 };
    second.prune(&prune).await.unwrap();
    assert_eq!(first.usage(usage.id).await.unwrap(), Some(usage));
    assert_eq!(first.raw_horizon().await.unwrap(), None);
}

#[tokio::test]
async fn a_store_may_live_beside_the_tables_of_an_application() {
    let schema = Schema::new();
    let mut conn = connect().await;
    let name = &schema.name;
    let theirs = format!(
        "CREATE SCHEMA {name}; CREATE TABLE {name}._sqlx_migrations (version bigint);
         INSERT INTO {name}._sqlx_migrations VALUES (12)"
    );
    conn.execute(raw_sql(AssertSqlSafe(theirs))).await.unwrap();
    // By the search path of the connection, as it is without `?schema=`.
    let mut by_path = url();
    by_path.query_pairs_mut().append_pair("options[search_path]", &format!("nowhere,{name}"));
    let config = PostgresConfig::from_url(by_path.as_str()).unwrap();
    let store = PostgresStore::open(config.clone()).await.unwrap();
    assert!(store.created());
    assert!(!PostgresStore::open(config).await.unwrap().created());
    let call = pending(1);
    store.append(&[call.clone().into()]).await.unwrap();
    assert!(!schema.open().await.created());
    assert_eq!(schema.open().await.execution(call.id).await.unwrap(), Some(call));
    let mut conn = schema.connect().await;
    let version: Vec<i64> =
        query_scalar("SELECT version FROM _sqlx_migrations").fetch_all(&mut conn).await.unwrap();
    assert_eq!(version, [12]);
    let mut nowhere = url();
    nowhere.query_pairs_mut().append_pair("options[search_path]", "nowhere");
    let error = refused(nowhere.as_str()).await;
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.chain().contains("search path"), "{}", error.chain());
}

#[tokio::test]
async fn a_person_can_read_the_calls() {
    let schema = Schema::new();
    let store = schema.open().await;
    let call = finished(pending(1));
    let prompt = prompt("welcome-mail", call.attribution.prompt);
    store.insert_prompt(&prompt, &[]).await.unwrap();
    store.append(&[call.clone().into(), pending(0).into()]).await.unwrap();
    let mut conn = schema.connect().await;
    let rows = query(
        "SELECT id::text, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), prompt,
             model, status, cost_kind, cost_usd::text, environment
         FROM prompt_engine_calls ORDER BY created_at DESC",
    );
    let rows = rows.fetch_all(&mut conn).await.unwrap();
    let texts = |row: usize| (0..8).map(|n| rows[row].get::<Option<String>, _>(n)).collect();
    let shown: Vec<Option<String>> = texts(0);
    let expected = [
        &call.id.to_string(),
        "2023-11-14 22:13:21",
        "welcome-mail",
        "gpt-4o",
        "success",
        "priced",
        "0.000000000001",
        "production",
    ];
    assert_eq!(shown, expected.map(|text| Some(text.to_owned())));
    let open: Vec<Option<String>> = texts(1);
    assert_eq!(open[4..7], [Some("pending".to_owned()), None, None]);
}

fn prompt(slug: &str, id: PromptId) -> Prompt {
    Prompt {
        id,
        slug: slug.parse().unwrap(),
        name: "Plain {{name}}".to_owned(),
        description: Some("a\0b\u{10ffff}".to_owned()),
        status: PromptStatus::Active,
        parameters: Vec::new(),
        active_version: Some(1),
        latest_version: 1,
        revision: 1,
        created_at: at(0),
        updated_at: at(0),
    }
}

#[tokio::test]
async fn texts_with_nul_are_kept_and_all_others_stay_readable() {
    let schema = Schema::new();
    let store = schema.open().await;
    let prompt = prompt("nul", PromptId::new());
    let version = PromptVersion {
        prompt_id: prompt.id,
        number: 1,
        content: "\0".repeat(3) + "\u{10ffff}0",
        system_message: Some("'\\ plain".to_owned()),
        model: None,
        temperature: None,
        max_tokens: None,
        metadata: serde_json::json!({"a\0": "b\0"}),
        change_description: None,
        author: None,
        created_at: at(0),
    };
    store.insert_prompt(&prompt, std::slice::from_ref(&version)).await.unwrap();
    let price = CostConfig {
        source: Some("\0".to_owned()),
        per_request: Some("0.010".parse().unwrap()),
        ..CostConfig::new("openai".parse().unwrap(), "gpt-4o".parse().unwrap())
    };
    store.put_cost_configs(std::slice::from_ref(&price), 0).await.unwrap();
    assert_eq!(store.prompt(prompt.id).await.unwrap(), Some(prompt));
    assert_eq!(store.version(version.prompt_id, 1).await.unwrap(), Some(version));
    assert_eq!(store.cost_configs().await.unwrap().configs, [price]);
    let mut conn = schema.connect().await;
    let stored: Vec<String> = query_scalar(
        "SELECT unnest(ARRAY[p.name, p.description, v.content, v.system_message, v.metadata::text])
         FROM prompt_engine_prompts AS p JOIN prompt_engine_prompt_versions AS v ON v.prompt = p.id",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let expected = [
        "Plain {{name}}",
        "a\u{10ffff}0b\u{10ffff}1",
        "\u{10ffff}0\u{10ffff}0\u{10ffff}0\u{10ffff}10",
        "'\\ plain",
        "{\"a\\u0000\":\"b\\u0000\"}",
    ];
    assert_eq!(stored, expected);
}

#[tokio::test]
async fn a_cursor_may_hold_what_no_slug_does() {
    let schema = Schema::new();
    let store = schema.open().await;
    for slug in ["a", "a-", "b"] {
        store.insert_prompt(&prompt(slug, PromptId::new()), &[]).await.unwrap();
    }
    let page = PageQuery { limit: 5, after: Some(Cursor::Prompt("a\0z".to_owned())) };
    let found = store.list_prompts(&page).await.unwrap().items;
    let slugs: Vec<&str> = found.iter().map(|prompt| prompt.slug.as_str()).collect();
    assert_eq!(slugs, ["a-", "b"]);
}

#[tokio::test]
async fn a_finished_call_has_its_own_payload_or_none() {
    let schema = Schema::new();
    let store = schema.open().await;
    let (with, without) = (pending(1), pending(2));
    store.append(&[with.clone().into(), without.clone().into()]).await.unwrap();
    let with = finished(with);
    let without = LlmExecution { payload: None, ..finished(without) };
    let batch: [Record; 3] = [with.clone().into(), without.clone().into(), with.clone().into()];
    let done = store.append(&batch).await.unwrap();
    assert_eq!((done.stored, done.unchanged), (2, 1));
    assert_eq!(store.execution(with.id).await.unwrap(), Some(with));
    assert_eq!(store.execution(without.id).await.unwrap(), Some(without));
    let mut conn = schema.connect().await;
    let sizes: Vec<i32> =
        query_scalar("SELECT length(data) FROM prompt_engine_llm_execution_payloads")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    assert_eq!(sizes.len(), 1);
    assert!(sizes[0] < 1_000, "{sizes:?} bytes of a compressible payload");
}

#[tokio::test]
async fn pruning_leaves_nothing_behind() {
    let schema = Schema::new();
    let store = schema.open().await;
    let records: Vec<Record> = (0..10)
        .flat_map(|second| [usage(second).into(), finished(pending(second)).into()])
        .collect();
    store.append(&records).await.unwrap();
    let payloads = Prune { payloads_before: Some(at(5)), raw_before: None, limit: 4 };
    let mut deleted = Vec::new();
    loop {
        let pruned = store.prune(&payloads).await.unwrap();
        deleted.push(pruned.payloads);
        if pruned.done {
            break;
        }
    }
    assert_eq!(deleted, [4, 4, 2]);
    let raw = Prune { payloads_before: None, raw_before: Some(at(100)), limit: 1000 };
    let pruned = store.prune(&raw).await.unwrap();
    assert_eq!((pruned.usages, pruned.executions, pruned.done), (10, 10, true));
    let mut conn = schema.connect().await;
    let left: i64 = query_scalar(
        "SELECT (SELECT count(*) FROM prompt_engine_usages)
              + (SELECT count(*) FROM prompt_engine_llm_executions)
              + (SELECT count(*) FROM prompt_engine_usage_payloads)
              + (SELECT count(*) FROM prompt_engine_llm_execution_payloads)
              + (SELECT count(*) FROM prompt_engine_payload_packs)",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn what_was_never_written_is_reported_and_not_believed() {
    let schema = Schema::new();
    let store = schema.open().await;
    let call = finished(pending(1));
    store.append(&[call.clone().into()]).await.unwrap();
    let mut conn = schema.connect().await;
    for (change, words) in [
        ("status = 77", "77 is no status"),
        ("status = 1, http_status = 70000", "70000 is no HTTP status"),
        ("http_status = NULL, created_at = 'infinity'", "time"),
        ("created_at = '20000-01-01'", "outside the years"),
    ] {
        let sql = format!("UPDATE prompt_engine_llm_executions SET {change}");
        conn.execute(raw_sql(AssertSqlSafe(sql))).await.unwrap();
        let error = store.execution(call.id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", error.chain());
        assert!(error.chain().contains(words), "{}", error.chain());
    }
    assert!(store.prompt(PromptId::new()).await.unwrap().is_none());
}

#[tokio::test]
async fn more_work_than_connections_takes_turns() {
    let schema = Schema::new();
    let store = PostgresStore::open(schema.config().with_max_connections(1)).await.unwrap();
    let tasks = (0..40).map(|second| {
        let store = store.clone();
        tokio::spawn(async move {
            store.append(&[usage(second).into(), pending(second).into()]).await.unwrap();
            store.aggregate(&Default::default()).await.unwrap();
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let rows = store.aggregate(&Default::default()).await.unwrap().rows;
    assert_eq!((rows[0].measures.uses, rows[0].measures.executions()), (Some(40), 40));
    let mut conn = connect().await;
    let open: i64 =
        query_scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1")
            .bind(&schema.name)
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert_eq!(open, 1);
    assert_eq!(attribution().version, 3);
}
