//! `executions`: look at recorded calls of models.

use clap::{Args, Subcommand};
use owo_colors::OwoColorize;
use prompt_engine::{
    Cost, Cursor, ExecutionId, Label, LlmExecution, Message, Page, PageQuery, PastCost,
    RecordQuery, StatsQuery, Status, TimeRange, ToolCall, UsageId,
};

use serde_json::Value;

use crate::context::Context;
use crate::explain::say_missing;
use crate::failure::Failure;
use crate::filters::{FilterArgs, RangeArgs};
use crate::output::{self, heading, printable, say};
use crate::record_json::{self, Slugs};
use crate::table::{
    cell, dollars, facts, milliseconds, moment, number, show, status, table, whole, whole_ids,
};

/// Look at recorded calls of models.
#[derive(Debug, Subcommand)]
pub(crate) enum ExecutionsCommand {
    /// List calls, newest first.
    #[command(
        after_help = "Example:\n  prompt-engine executions list --status error --last 24h --json\n  \
        prompt-engine executions list --slowest -n 10 --prompt welcome"
    )]
    List(Box<ListArgs>),
    /// Show one call with its texts.
    #[command(
        after_help = "Example:\n  prompt-engine executions show 01930a7e-5c1f-7cc3-98c4-dc0c0c07398f --json"
    )]
    Show {
        /// The id of the execution.
        id: ExecutionId,
    },
}

/// Which calls.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only in this status: pending, success, error, timeout or cancelled; may be given several times.
    #[arg(long, value_name = "STATUS")]
    status: Vec<Status>,
    /// Only of this usage.
    #[arg(long, value_name = "ID")]
    usage: Option<UsageId>,
    /// Those that took longest instead, the slowest first.
    #[arg(long, conflicts_with_all = ["cursor", "usage"])]
    slowest: bool,
    #[command(flatten)]
    list: RecordListArgs,
}

/// What lists of usages and of executions can be asked for.
#[derive(Debug, Args)]
pub(crate) struct RecordListArgs {
    /// Only of this version of the prompt.
    #[arg(long, value_name = "NUMBER", requires = "prompt", help_heading = "Which records")]
    pub(crate) version: Option<u32>,
    /// Only of this session.
    #[arg(long, value_name = "NAME", help_heading = "Which records")]
    pub(crate) session: Option<Label>,
    /// Only of this user.
    #[arg(long, value_name = "NAME", help_heading = "Which records")]
    pub(crate) user: Option<Label>,
    /// How many at most.
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    /// Where the page before ended, as it said.
    #[arg(long)]
    pub(crate) cursor: Option<Cursor>,
    #[command(flatten)]
    pub(crate) range: RangeArgs,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

impl RecordListArgs {
    /// The question to the store.
    pub(crate) async fn query(
        &self,
        engine: &prompt_engine::PromptEngine,
    ) -> Result<RecordQuery, Failure> {
        let range = self.range.range(TimeRange::all())?;
        let mut filter = self.filter.filter(engine).await?;
        filter.version = self.version;
        filter.session.clone_from(&self.session);
        filter.user.clone_from(&self.user);
        let page = PageQuery { limit: self.limit, after: self.cursor.clone() };
        Ok(RecordQuery { range, filter, page, ..RecordQuery::default() })
    }
}

/// Says how to get the next page or, behind the last, what is missing because it was pruned: on
/// standard error, where no list is.
pub(crate) async fn say_end(
    engine: &prompt_engine::PromptEngine,
    range: TimeRange,
    next: Option<&Cursor>,
) -> Result<(), Failure> {
    if let Some(cursor) = next {
        output::note(format_args!("There is more: --cursor {cursor}"));
    } else if let Some(horizon) = engine.store().raw_horizon().await?
        && range.from.is_none_or(|from| from < horizon)
    {
        say_missing(horizon);
    }
    Ok(())
}

pub(crate) async fn run(command: ExecutionsCommand, context: &Context) -> Result<(), Failure> {
    match command {
        ExecutionsCommand::List(args) => list(&args, context).await,
        ExecutionsCommand::Show { id } => show_one(id, context).await,
    }
}

async fn list(args: &ListArgs, context: &Context) -> Result<(), Failure> {
    args.list.range.range(TimeRange::all())?;
    let engine = context.open().await?;
    let mut query = args.list.query(&engine).await?;
    query.filter.statuses.clone_from(&args.status);
    query.usage = args.usage;
    let page = if args.slowest {
        let asked = StatsQuery { range: query.range, filter: query.filter.clone() };
        let items = engine.analytics().slowest_executions(&asked, query.page.limit).await?;
        Page { items, next: None }
    } else {
        engine.store().list_executions(&query).await?
    };
    let mut slugs = Slugs::default();
    if context.json() {
        let mut lines = Vec::new();
        for one in &page.items {
            let slug = slugs.of(&engine, one.attribution.prompt).await?;
            lines.push(record_json::execution(one, &slug));
        }
        output::lines(&lines)?;
    } else if page.items.is_empty() && args.slowest {
        say("There are no such calls of which is known how long they took.")?;
    } else if page.items.is_empty() {
        say("There are no such calls.")?;
    } else {
        let mut rows =
            table(&["Id", "Sent", "Prompt", "Model", "Status", ">Tokens", ">Cost", ">Latency"]);
        for one in &page.items {
            let slug = slugs.of(&engine, one.attribution.prompt).await?;
            rows.add_row([
                cell(one.id.to_string()),
                cell(moment(one.created_at)),
                cell(format!("{slug} v{}", one.attribution.version)),
                cell(one.model.as_str()),
                status(one.status),
                cell(one.tokens.map_or("-".to_owned(), |tokens| number(tokens.total()))),
                cell(short_cost(one)),
                cell(latency(one.latency_ms)),
            ]);
        }
        whole_ids(&mut rows, if args.slowest { &[3, 5, 6] } else { &[3, 5, 7] });
        [4, 6, 7].into_iter().for_each(|index| whole(&mut rows, index));
        show(&rows)?;
    }
    say_end(&engine, query.range, page.next.as_ref()).await
}

/// Bytes of a text beyond which it stands below the facts of a call: a table takes long to wrap it.
const LONG: usize = 500;

async fn show_one(id: ExecutionId, context: &Context) -> Result<(), Failure> {
    let engine = context.open().await?;
    let found = engine.store().execution(id).await?;
    let one = found.ok_or_else(|| Failure::failed(format!("there is no execution {id}")))?;
    let slug = Slugs::default().of(&engine, one.attribution.prompt).await?;
    let past = engine.store().past_costs(&[id]).await?.concat();
    if context.json() {
        let mut fields = record_json::execution(&one, &slug);
        let past: Vec<Value> = past.iter().map(record_json::past_cost).collect();
        fields.insert("past_costs".to_owned(), past.into());
        return output::document(&fields);
    }
    print(&one, &past, &slug)
}

fn print(one: &LlmExecution, past: &[PastCost], slug: &str) -> Result<(), Failure> {
    heading(format_args!("Execution {}", one.id))?;
    let of = &one.attribution;
    let mut known = vec![
        ("Prompt", format!("{slug} v{}", of.version)),
        ("Usage", one.usage_id.to_string()),
        ("Environment", of.environment.to_string()),
        ("Model", format!("{}/{}", one.provider, one.model)),
        ("Status", one.status.to_string()),
    ];
    let mut add = |name, value: Option<String>| {
        if let Some(value) = value {
            known.push((name, value));
        }
    };
    let payload = one.payload.as_ref();
    add("Error", one.error_category.map(|category| category.to_string()));
    add("HTTP status", one.http_status.map(|code| code.to_string()));
    add("Error code", said(one, "error_code"));
    let message = payload.and_then(|payload| payload.error_message.as_deref());
    let is_long = message.is_some_and(|message| message.len() > LONG);
    add("Message", message.filter(|_| !is_long).map(str::to_owned));
    let wait = payload.and_then(|payload| payload.response_metadata.get("retry_after_ms"));
    add("Retry after", wait.and_then(Value::as_u64).map(|ms| latency(Some(ms))));
    add("Request id", said(one, "request_id"));
    add("Session", of.session.as_ref().map(ToString::to_string));
    add("User", of.user.as_ref().map(ToString::to_string));
    add("Answered by", one.response_model.as_ref().map(ToString::to_string));
    let in_and_out =
        |[input, output]: [u64; 2]| format!("{} input, {} output", number(input), number(output));
    add("Tokens", one.tokens.map(|tokens| in_and_out([tokens.input, tokens.output])));
    add("Tokens so far", used_so_far(one).map(in_and_out));
    add("Service tier", one.service_tier.as_ref().map(ToString::to_string));
    add("Cost", one.cost.map(|_| long_cost(one)));
    add("Priced as", one.priced_model.as_ref().map(ToString::to_string));
    for PastCost { cost, replaced_at, .. } in past {
        let until = moment(*replaced_at);
        add("Cost before", Some(format!("{} until {until}", describe(one, *cost))));
    }
    add("Latency", one.latency_ms.map(|ms| latency(Some(ms))));
    add("First token", one.time_to_first_token_ms.map(|ms| latency(Some(ms))));
    add(
        "Finish",
        payload
            .and_then(|payload| payload.finish_reason.as_deref())
            .map(|why| output::excerpt(why, LONG)),
    );
    add("Sent", Some(moment(one.created_at)));
    add("Finished", one.completed_at.map(moment));
    show(&facts(known))?;
    let Some(payload) = payload else {
        return say("The texts of this call are no longer kept.");
    };
    for message in &*payload.messages_sent {
        say("")?;
        heading(message.role)?;
        let Message { content, images, tool_calls, .. } = message;
        if !content.is_empty() || images.is_empty() && tool_calls.is_empty() {
            say(printable(content))?;
        }
        for image in images {
            say(format_args!("picture: {}", output::excerpt(image.url(), 80)))?;
        }
        for call in tool_calls {
            say_call(call)?;
        }
    }
    if let Some(message) = message.filter(|_| is_long) {
        say("")?;
        heading("error")?;
        say(printable(message))?;
    }
    if let Some(content) = &payload.response_content {
        say("")?;
        heading("answer")?;
        say(printable(content))?;
    }
    for call in &payload.tool_calls {
        say("")?;
        heading("tool call")?;
        say(printable(&format!("{} {}", call.name, call.arguments)))?;
    }
    if payload.messages_sent.is_empty() && payload.response_content.is_none() {
        say("No texts were recorded with this call.".dimmed())?;
    }
    Ok(())
}

/// What the provider said under `name`, beside its answer or its error.
fn said(one: &LlmExecution, name: &str) -> Option<String> {
    let value = one.payload.as_ref()?.response_metadata.get(name)?;
    Some(output::excerpt(&value.as_str().map_or_else(|| value.to_string(), str::to_owned), LONG))
}

/// The input and the output of an answer that broke off, as the provider had counted them by then.
fn used_so_far(one: &LlmExecution) -> Option<[u64; 2]> {
    let used = one.payload.as_ref()?.response_metadata.get("usage_so_far")?;
    let count = |name| used.get(name).and_then(Value::as_u64);
    Some([count("input")?, count("output")?])
}

/// Prints a call of a tool.
pub(crate) fn say_call(call: &ToolCall) -> Result<(), Failure> {
    say(format_args!("tool call: {} {}", printable(&call.name), printable(&call.arguments)))
}

/// Milliseconds for people.
pub(crate) fn latency(ms: Option<u64>) -> String {
    // What is beyond 49 days is shown as 49 days.
    milliseconds(ms.map(|ms| f64::from(u32::try_from(ms).unwrap_or(u32::MAX))))
}

pub(crate) fn short_cost(of: &LlmExecution) -> String {
    match of.cost {
        None => "-".to_owned(),
        Some(cost) => cost.usd().map_or("unknown".to_owned(), dollars),
    }
}

/// What a call cost, or why nobody can say.
pub(crate) fn long_cost(of: &LlmExecution) -> String {
    let pending = || "unknown (the call has not finished)".to_owned();
    of.cost.map_or_else(pending, |cost| describe(of, cost))
}

/// A cost that a call has or had.
fn describe(of: &LlmExecution, cost: Cost) -> String {
    use prompt_engine::UnpricedReason::{
        InconsistentUsage, MissingRate, NoUsage, Overflow, UnknownModel,
    };
    let name = format!("{}/{}", of.provider, of.model);
    match cost {
        Cost::Priced { usd, .. } => dollars(usd),
        Cost::Reported { usd } => format!("{} (as the provider says)", dollars(usd)),
        Cost::LocalCache => "$0.00 (answered from a local cache)".to_owned(),
        Cost::Unpriced { reason } => match reason {
            UnknownModel => format!("unknown (no price for {name})"),
            MissingRate => format!(
                "unknown (the prices of {name} lack a rate for its tokens, its service tier or its time)"
            ),
            NoUsage if of.status == Status::Success => {
                "unknown (the provider reported no tokens)".to_owned()
            }
            NoUsage => "unknown (the call ended without a count of its tokens)".to_owned(),
            InconsistentUsage => "unknown (the reported tokens contradict each other)".to_owned(),
            Overflow => "unknown (more than 9.2 million dollars)".to_owned(),
        },
    }
}
