//! The rows of the set as CSV and the answers of the store as JSON, so that any other engine can be
//! asked the same. `benches/check/duckdb_check.py` asks DuckDB.
//! Invariant: the rows come from the set, the answers from the store.

use std::fs::{File, create_dir_all};
use std::io::{BufWriter, Write};
use std::path::Path;

use prompt_engine_benches::{Answer, Asked, Question, Set};
use prompt_engine_core::{ExecutionId, Status, Timestamp, UsageId};
use serde::Serialize;

use crate::Outcome;

/// A question as it was asked, and its answer. A range is from its start until before its end.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    query: &'static str,
    extra: bool,
    ms: f64,
    from_micros: Option<i64>,
    to_micros: Option<i64>,
    prompt: Option<String>,
    environment: Option<String>,
    session: Option<String>,
    zone: String,
    answer: Answer,
}

impl Entry {
    pub(crate) fn new(
        set: &Set,
        question: Question,
        asked: &Asked,
        ms: f64,
        answer: Answer,
    ) -> Self {
        let environment = |place: usize| set.environments()[place].to_string();
        Self {
            query: question.name(),
            extra: question.is_extra(),
            ms,
            from_micros: asked.range.from.map(Timestamp::as_micros),
            to_micros: asked.range.to.map(Timestamp::as_micros),
            prompt: asked.prompt.map(Set::slug),
            environment: asked.environment.map(environment),
            session: asked.session.map(|number| Set::session(number).to_string()),
            zone: question.zone().to_string(),
            answer,
        }
    }
}

/// Writes `usages.csv`, `executions.csv` and `answers.json` to `folder`.
pub(crate) fn write(folder: &Path, set: &Set, entries: &[Entry]) -> Outcome<()> {
    create_dir_all(folder)?;
    let create =
        |name: &str| Ok::<_, std::io::Error>(BufWriter::new(File::create(folder.join(name))?));
    serde_json::to_writer_pretty(create("answers.json")?, entries)?;
    let (mut usages, mut executions) = (create("usages.csv")?, create("executions.csv")?);
    writeln!(usages, "id,created_at_micros,prompt,version,environment,session,user")?;
    writeln!(
        executions,
        "id,usage_id,created_at_micros,prompt,version,environment,session,user,provider,model,status,\
         error_category,input_tokens,output_tokens,cost_pico,latency_ms"
    )?;
    for call in 0..set.calls() {
        let fact = set.fact(call);
        let (usage, execution) = set.ids(call, &fact);
        let usage = UsageId::from_bytes(usage);
        let execution = ExecutionId::from_bytes(execution);
        // No text of a set holds a comma or a quote.
        let of = format!(
            "{},{},{},{},user-{}",
            Set::slug(fact.prompt),
            fact.version,
            set.environments()[fact.environment],
            Set::session(fact.session),
            fact.user
        );
        writeln!(usages, "{usage},{},{of}", fact.rendered_at)?;
        let (provider, model) = &set.models()[fact.model];
        let category = fact.category.map_or("", |category| category.as_str());
        write!(
            executions,
            "{execution},{usage},{},{of},{provider},{model},{},{category},",
            fact.sent_at, fact.status
        )?;
        if fact.status == Status::Success {
            write!(executions, "{},{},{}", fact.input, fact.output, fact.cost_pico)?;
        } else {
            write!(executions, ",,")?;
        }
        writeln!(executions, ",{}", fact.latency_ms)?;
    }
    usages.flush()?;
    executions.flush()?;
    Ok(())
}
