//! `import`: an export goes into a store as it is (`own`); history from elsewhere becomes usages and
//! executions, priced at their own moment.
//! Invariant: importing a file again, or after it grew, adds only what is new; a batch is stored
//! whole or not at all, and what was stored is always said.

mod own;
mod plan;
mod report;
mod row;
mod source;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use prompt_engine::{
    Attribution, ErrorCategory, ErrorKind, ExecutionId, ExecutionPayload, LlmExecution, NewPrompt,
    PriceBook, PriceRequest, Prompt, PromptEngine, Record, Slug, Status, Usage, UsageId,
    VersionDraft, Zone,
};

use self::own::OwnFile;
use self::plan::Plan;
use self::report::Report;
use self::row::Row;
use self::source::{Refusal, Source};
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::table::{count, number};

/// Rows of one transaction; each is a usage and an execution.
const BATCH: usize = 2_000;
/// Refusals that the JSON document names; all of them go to standard error.
const NAMED_REFUSALS: usize = 100;
/// The only version that every prompt is sure to have, at every import of a file.
const FIRST_VERSION: u32 = 1;

/// What to import.
#[derive(Debug, Args)]
#[command(after_help = "\
Fields: created_at, prompt, provider, model (these four are needed); version, response_model, \
environment, session, user, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, \
cache_write_1h_tokens, reasoning_tokens, audio_input_tokens, audio_output_tokens, service_tier, latency_ms, time_to_first_token_ms, response_content, status.

Times: RFC 3339; 2026-01-31 10:00:00.123 in --tz (finer than a microsecond is cut); \
ten digits are Unix seconds, thirteen are milliseconds.
A key of an object within an object is written with dots: usage.input.
Input tokens include cached ones, output tokens include reasoning. Without status a call is a success, \
without version it counts for version 1.
Importing a file again, or after it grew, adds only what is new.

An export is known by its first line and needs no options.

Example:
  prompt-engine import backup.jsonl
  prompt-engine import calls.csv --map created_at=TIMESTAMP,input_tokens=ContextTokens,output_tokens=GeneratedTokens \\
      --set prompt=code-completion,provider=openai,model=gpt-4o --create-prompts")]
pub(crate) struct ImportArgs {
    /// The file: an export, or - for one on standard input; .csv with a header line; .jsonl with
    /// one object a line.
    file: PathBuf,
    /// Which column holds which field.
    #[arg(long, value_name = "FIELD=COLUMN,…")]
    map: Vec<String>,
    /// Fields that are the same for every line.
    #[arg(long, value_name = "FIELD=VALUE,…")]
    set: Vec<String>,
    /// Create the prompts that do not exist.
    #[arg(long)]
    create_prompts: bool,
    /// What to do with a line that cannot be imported: stop before it, or skip it and go on.
    #[arg(long, value_enum, default_value_t = OnError::Stop, value_name = "WHAT")]
    on_error: OnError,
    /// The zone of times without an offset: Europe/Berlin, or +05:45.
    #[arg(long, value_name = "ZONE", default_value = "UTC", allow_hyphen_values = true)]
    tz: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnError {
    Stop,
    Skip,
}

pub(crate) async fn run(args: ImportArgs, context: &Context) -> Result<(), Failure> {
    let zone: Zone = args.tz.parse().map_err(|error| Failure::option("--tz", &error))?;
    if let Some(file) = OwnFile::open(&args.file).map_err(Failure::failed)? {
        let for_others = !args.map.is_empty() || !args.set.is_empty() || args.create_prompts;
        if for_others || args.on_error != OnError::Stop || args.tz != "UTC" {
            return Err(Failure::usage(
                "an export says itself what it holds: --map, --set, --create-prompts, --on-error \
                 and --tz are for other files",
            ));
        }
        return own::run(file, context).await;
    }
    if args.map.is_empty() && args.set.is_empty() {
        return Err(Failure::usage(format!(
            "{} is no export, which starts with {{\"prompt_engine_export\":1}}; any other file \
             needs --map, which says what its columns hold",
            args.file.display()
        )));
    }
    let plan = Plan::new(&args.map, &args.set, zone).map_err(Failure::usage)?;
    let source = Source::open(&args.file, plan.columns()).map_err(Failure::failed)?;
    let engine =
        if args.create_prompts { context.open_or_create().await } else { context.open().await }?;
    if let (Some(slug), false) = (plan.fixed_prompt(), args.create_prompts) {
        engine.prompts().get(slug).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failure::failed(format!("{error}; --create-prompts makes it")),
            _ => error.into(),
        })?;
    }
    let progress = Progress::new(source.bytes());
    let mut report =
        Report::new(args.file.display().to_string(), engine.store().raw_horizon().await?);
    report.columns_left_out = source.others().to_vec();
    let book = engine.price_book();
    let mut import = Import {
        engine: &engine,
        book: &book,
        args: &args,
        plan: &plan,
        progress,
        prompts: HashMap::new(),
        seen: HashMap::new(),
        report,
    };
    let outcome = import.all(source).await;
    import.progress.finish();
    let mut report = import.report;
    report.print(context.json())?;
    outcome?;
    context.close(&engine).await?;
    match report.refused {
        0 => Ok(()),
        refused => Err(Failure::failed(format!(
            "{} of {} refused, see above",
            count(refused, "line"),
            report.file
        ))),
    }
}

/// An import under way.
struct Import<'a> {
    engine: &'a PromptEngine,
    book: &'a PriceBook,
    args: &'a ImportArgs,
    plan: &'a Plan,
    progress: Progress,
    prompts: HashMap<Slug, Prompt>,
    /// How many rows had a digest that begins so: some 30 bytes for each row of the file. Two that
    /// differ and begin alike, one case in 10^5 for ten million rows, only raise an ordinal.
    seen: HashMap<u64, u32>,
    report: Report,
}

/// A row that is ready to be stored.
struct Ready {
    line: u64,
    records: [Record; 2],
}

impl Import<'_> {
    async fn all(&mut self, mut source: Source) -> Result<(), Failure> {
        let path = self.args.file.display().to_string();
        let mut batch: Vec<Ready> = Vec::with_capacity(BATCH);
        while let Some(line) = source
            .next()
            .map_err(|error| Failure::failed(format!("cannot read {path}: {error}")))?
        {
            self.report.read += 1;
            match self.ready(line, &source).await? {
                Ok(ready) => batch.extend(ready),
                Err(refusal) => {
                    if self.args.on_error == OnError::Stop {
                        self.store(std::mem::take(&mut batch)).await?;
                    }
                    self.refuse(refusal)?;
                }
            }
            if batch.len() >= BATCH {
                self.store(std::mem::take(&mut batch)).await?;
                self.progress.at(source.position());
            }
        }
        self.store(batch).await?;
        self.report.columns_never_seen =
            source.never_seen().into_iter().map(str::to_owned).collect();
        Ok(())
    }

    /// The records of a line, none of one from before the raw horizon, or why it is refused.
    async fn ready(
        &mut self,
        line: Result<source::Line, Refusal>,
        source: &Source,
    ) -> Result<Result<Option<Ready>, Refusal>, Failure> {
        let line = match line {
            Ok(line) => line,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let refuse = |column: Option<&str>, why: String| {
            Ok(Err(Refusal { line: line.number, column: column.map(str::to_owned), why }))
        };
        let row = match self.plan.row(&line.cells) {
            Ok(row) => row,
            Err((column, why)) => return refuse(column.map(|index| source.column(index)), why),
        };
        // The plan lets no row through without these four.
        let (Some(at), Some(slug), Some(provider), Some(model)) =
            (row.at, &row.prompt, &row.provider, &row.model)
        else {
            return refuse(None, "it lacks a needed field".to_owned());
        };
        if self.report.raw_horizon.is_some_and(|horizon| at < horizon) {
            self.report.before_horizon += 1;
            return Ok(Ok(None));
        }
        let Some(prompt) = self.prompt(slug).await? else {
            return refuse(None, format!("there is no prompt {slug}; --create-prompts makes it"));
        };
        let version = row.version.unwrap_or(FIRST_VERSION);
        if version > prompt.latest_version {
            return refuse(None, format!("the prompt {slug} has no version {version}"));
        }
        let attribution = Attribution {
            prompt: prompt.id,
            version,
            environment: row
                .environment
                .clone()
                .unwrap_or_else(|| self.engine.environment().clone()),
            session: row.session.clone(),
            user: row.user.clone(),
        };
        let digest = row.digest();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        let seen = self.seen.entry(u64::from_be_bytes([a, b, c, d, e, f, g, h])).or_insert(0);
        let (usage_id, execution_id) = row::ids(at, &digest, *seen);
        *seen = seen.saturating_add(1);
        let usage = Usage {
            id: UsageId::from_bytes(usage_id),
            attribution: attribution.clone(),
            created_at: at,
            payload: None,
        };
        let pending = LlmExecution::pending(
            ExecutionId::from_bytes(execution_id),
            usage.id,
            attribution,
            provider.clone(),
            model.clone(),
            at,
        );
        let execution = match self.finished(pending, row) {
            Ok(execution) => execution,
            Err(why) => return refuse(None, why),
        };
        self.report.note(&execution);
        Ok(Ok(Some(Ready { line: line.number, records: [usage.into(), execution.into()] })))
    }

    /// The execution with all that the row says about its end, priced at its own moment.
    fn finished(&self, pending: LlmExecution, row: Row) -> Result<LlmExecution, String> {
        let at = pending.created_at;
        let tokens = row.tokens()?;
        let quote = self.book.price(&PriceRequest {
            provider: &pending.provider,
            model: &pending.model,
            response_model: row.response_model.as_deref(),
            at,
            tokens: tokens.as_ref(),
            service_tier: row.service_tier.as_deref(),
        });
        let latency = Duration::from_millis(row.latency_ms.unwrap_or(0));
        let status = row.status.unwrap_or(Status::Success);
        let execution = LlmExecution {
            response_model: row.response_model,
            priced_model: quote.priced_model.cloned(),
            service_tier: row.service_tier,
            status,
            error_category: match status {
                Status::Pending | Status::Success => None,
                Status::Error => Some(ErrorCategory::Other),
                Status::Timeout => Some(ErrorCategory::Timeout),
                Status::Cancelled => Some(ErrorCategory::Cancelled),
            },
            tokens,
            cost: Some(quote.cost),
            latency_ms: row.latency_ms,
            time_to_first_token_ms: row.time_to_first_token_ms,
            completed_at: Some(at.saturating_add(latency)),
            payload: row.response_content.map(|content| {
                let response_content = Some(content);
                ExecutionPayload { response_content, ..ExecutionPayload::default() }.into()
            }),
            ..pending
        };
        execution.validate().map_err(|error| error.to_string())?;
        Ok(execution)
    }

    /// The prompt of `slug`, made where it may be; `None` where it does not exist and may not.
    async fn prompt(&mut self, slug: &Slug) -> Result<Option<&Prompt>, Failure> {
        if !self.prompts.contains_key(slug) {
            let found = match self.engine.prompts().get(slug).await {
                Ok(prompt) => prompt,
                Err(error) if error.kind() == ErrorKind::NotFound && self.args.create_prompts => {
                    self.create(slug).await?
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            self.prompts.insert(slug.clone(), found);
        }
        Ok(self.prompts.get(slug))
    }

    async fn create(&mut self, slug: &Slug) -> Result<Prompt, Failure> {
        let new = NewPrompt {
            slug: slug.clone(),
            name: slug.to_string(),
            description: Some("Made by an import of history.".to_owned()),
            draft: false,
            version: VersionDraft {
                content: "(the text of this prompt is not known: its history was imported)"
                    .to_owned(),
                change_description: Some("Stands for the imported history.".to_owned()),
                ..VersionDraft::default()
            },
        };
        match self.engine.prompts().create(new).await {
            Ok((prompt, _)) => {
                self.report.prompts_created.push(slug.to_string());
                Ok(prompt)
            }
            // Somebody else made it in between.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                Ok(self.engine.prompts().get(slug).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stores the rows, all together; where the store refuses one of them, what is before it and,
    /// if lines are to be skipped, what is behind it.
    async fn store(&mut self, rows: Vec<Ready>) -> Result<(), Failure> {
        let mut waiting = vec![rows];
        while let Some(mut rows) = waiting.pop() {
            if rows.is_empty() {
                continue;
            }
            let records: Vec<Record> = rows.iter().flat_map(|row| row.records.clone()).collect();
            let error = match self.engine.store().append(&records).await {
                Ok(appended) => {
                    // Both records of a row are new, or neither is.
                    let stored = appended.stored.div_ceil(2);
                    self.report.stored += stored;
                    let all = u64::try_from(rows.len()).unwrap_or(u64::MAX);
                    self.report.already_there += all.saturating_sub(stored);
                    continue;
                }
                Err(error) => error,
            };
            if !matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Conflict) {
                let stored = count(self.report.stored, "row");
                return Err(Failure::failed(format!("{}; {stored} stored before", error.chain())));
            }
            if let [row] = &rows[..] {
                let mut why = error.chain();
                if error.kind() == ErrorKind::Conflict {
                    why.push_str("; was it imported for another environment?");
                }
                self.refuse(Refusal { line: row.line, column: None, why })?;
            } else {
                let behind = rows.split_off(rows.len() / 2);
                waiting.push(behind);
                waiting.push(rows);
            }
        }
        Ok(())
    }

    /// Notes a refused line, or stops at it.
    fn refuse(&mut self, refusal: Refusal) -> Result<(), Failure> {
        self.report.refused += 1;
        let sentence = match self.args.on_error {
            OnError::Stop => {
                let (stored, there) = (self.report.stored, self.report.already_there);
                let mut done = format!("{} before it stored", count(stored, "row"));
                if there > 0 {
                    done.push_str(&format!(", {} already there", number(there)));
                }
                Some(format!("{refusal}; {done}, nothing behind it (--on-error skip goes on)"))
            }
            OnError::Skip => {
                self.progress.note(&refusal.to_string());
                None
            }
        };
        if self.report.refusals.len() < NAMED_REFUSALS {
            self.report.refusals.push(refusal);
        }
        sentence.map_or(Ok(()), |sentence| Err(Failure::failed(sentence)))
    }
}
