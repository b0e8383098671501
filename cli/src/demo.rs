//! `demo`: prompts, a model server of our own, a few hundred tracked calls, and what they tell.
//! Invariant: no key, no network but loopback, and no file that exists is touched.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use futures::StreamExt;
use owo_colors::OwoColorize;
use prompt_engine::openai::OpenAi;
use prompt_engine::{Activation, Label, NewPrompt, PromptEngine, Slug, VersionDraft, params};
use prompt_engine_llm::MockServer;
use serde_json::json;

use crate::Cli;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{note, say};
use crate::progress::Progress;
use crate::table::{count, number};

/// The file that is made where none is named.
const FILE: &str = "prompt_engine_demo.db";
/// Calls under way at a time.
const AT_ONCE: usize = 16;
/// What a call may take before it counts as a timeout.
const TIMEOUT: Duration = Duration::from_millis(800);

/// How to show it.
#[derive(Debug, Args)]
#[command(
    after_help = "The demo makes a SQLite file of its own; what --store names is left alone.\n\nExample:\n  prompt-engine demo --calls 1000 --file /tmp/demo.db"
)]
pub(crate) struct DemoArgs {
    /// The file to make; it must not exist. [default: prompt_engine_demo.db, or the next free
    /// name with a number]
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// How many calls to make.
    #[arg(long, value_name = "N", default_value_t = 400,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    calls: u32,
}

pub(crate) async fn run(args: DemoArgs, context: &Context) -> Result<(), Failure> {
    let file = free_file(args.file)?;
    let url = format!("sqlite://{}", file.display());
    let start = Instant::now();
    let server =
        MockServer::start()?.with_latency(Duration::from_millis(4)..=Duration::from_millis(60), 7);
    tell(context, format_args!("A model server of our own listens on {}.", server.base_url()))?;
    let engine = PromptEngine::connect(&url).await?;
    make_prompts(&engine).await?;
    tell(context, format_args!("Three prompts with seven versions are in {}.", file.display()))?;

    let clients = Clients::new(&server.base_url())?;
    let progress = Progress::new(u64::from(args.calls));
    let mut done = 0_u64;
    let mut failed = 0_u64;
    let mut calls = futures::stream::iter(0..args.calls)
        .map(|index| call(&engine, &clients, index))
        .buffer_unordered(AT_ONCE);
    while let Some(outcome) = calls.next().await {
        done += 1;
        failed += u64::from(!outcome?);
        progress.at(done);
    }
    drop(calls);
    progress.finish();
    context.close(&engine).await?;
    tell(
        context,
        format_args!(
            "{} went over HTTP, {} of them failed or were given up, as they were meant to; {:.1} s in all.",
            count(server.requests(), "request"),
            number(failed),
            start.elapsed().as_secs_f64()
        ),
    )?;

    for command in [&["stats"][..], &["costs", "--by", "model"], &["errors"], &["top"]] {
        show(command, &url, context).await?;
    }
    tell(context, format_args!("\n{}", "To go on with".bold()))?;
    for next in [
        "costs --by prompt",
        "prompt show summarise-ticket",
        "prompt diff welcome-mail 1 2",
        "render welcome-mail --var name=Ada --var plan=pro",
        "executions list --status timeout",
        "prices check",
    ] {
        tell(context, format_args!("  prompt-engine --store {url} {next}"))?;
    }
    Ok(())
}

/// Prints a line about the demo itself: to standard error where standard output is JSON.
fn tell(context: &Context, line: impl Display) -> Result<(), Failure> {
    if context.json() {
        note(line);
        return Ok(());
    }
    say(line)
}

/// Runs a command of ours as if it had been typed.
async fn show(command: &[&str], url: &str, context: &Context) -> Result<(), Failure> {
    tell(context, format_args!("\n{}", format!("$ prompt-engine {}", command.join(" ")).dimmed()))?;
    let words = ["prompt-engine", "--store", url].into_iter().chain(command.iter().copied());
    let cli = Cli::try_parse_from(words.chain(context.json().then_some("--json")))
        .map_err(|error| Failure::failed(format!("the demo calls us wrongly: {error}")))?;
    Box::pin(crate::dispatch(cli)).await
}

/// The file that was named, or one that does not exist yet.
fn free_file(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(file) = named {
        if file.exists() {
            return Err(Failure::failed(format!(
                "{} exists, and the demo touches no file that does; name another",
                file.display()
            )));
        }
        return Ok(file);
    }
    let first = PathBuf::from(FILE);
    let numbered = (2..1_000).map(|number| Path::new(FILE).with_extension(format!("{number}.db")));
    std::iter::once(first).chain(numbered).find(|file| !file.exists()).ok_or_else(|| {
        Failure::failed(format!("a thousand files like {FILE} are here; name another with --file"))
    })
}

async fn make_prompts(engine: &PromptEngine) -> Result<(), Failure> {
    let prompts = engine.prompts();
    let welcome = Slug::new("welcome-mail")?;
    prompts
        .create(NewPrompt {
            slug: welcome.clone(),
            name: "Welcome mail".to_owned(),
            description: Some("Sent once, after somebody signed up.".to_owned()),
            draft: false,
            version: VersionDraft {
                content: "Write a welcome mail to {{name}}.".to_owned(),
                model: Some(Label::new("gpt-4o")?),
                temperature: Some(0.8),
                author: Some("ada".to_owned()),
                ..VersionDraft::default()
            },
        })
        .await?;
    let second = VersionDraft {
        content:
            "Write a welcome mail of at most 80 words to {{name}}, who chose the {{plan}} plan."
                .to_owned(),
        system_message: Some(
            "You write for a small software company. Warm, never gushing.".to_owned(),
        ),
        model: Some(Label::new("gpt-4o")?),
        temperature: Some(0.6),
        max_tokens: Some(300),
        change_description: Some("Shorter, and it names the plan.".to_owned()),
        author: Some("ada".to_owned()),
        ..VersionDraft::default()
    };
    prompts.add_version(&welcome, second, Activation::Activate).await?;

    let summary = Slug::new("summarise-ticket")?;
    let of_ticket = |content: &str, model: &str, why: Option<&str>| -> Result<_, Failure> {
        Ok(VersionDraft {
            content: content.to_owned(),
            system_message: Some("You help a support team. Answer in plain text.".to_owned()),
            model: Some(Label::new(model)?),
            temperature: Some(0.2),
            max_tokens: Some(400),
            change_description: why.map(str::to_owned),
            author: Some("grace".to_owned()),
            ..VersionDraft::default()
        })
    };
    prompts
        .create(NewPrompt {
            slug: summary.clone(),
            name: "Summary of a ticket".to_owned(),
            description: Some("Read by whoever takes the ticket over.".to_owned()),
            draft: false,
            version: of_ticket("Summarise this ticket:\n{{ticket}}", "gpt-4o", None)?,
        })
        .await?;
    for (content, model, why) in [
        (
            "Summarise this ticket in three sentences for whoever takes it over:\n{{ticket}}",
            "gpt-4o",
            "Three sentences are enough.",
        ),
        (
            "Summarise this ticket in three sentences, the customer's wish first:\n{{ticket}}",
            "gpt-4o-mini",
            "The smaller model, to save money.",
        ),
    ] {
        let draft = of_ticket(content, model, Some(why))?;
        prompts.add_version(&summary, draft, Activation::Activate).await?;
    }

    let intent = Slug::new("classify-intent")?;
    let of_intent = |content: &str, why: Option<&str>| -> Result<_, Failure> {
        Ok(VersionDraft {
            content: content.to_owned(),
            model: Some(Label::new("gpt-4o-mini")?),
            temperature: Some(0.0),
            max_tokens: Some(10),
            change_description: why.map(str::to_owned),
            author: Some("alan".to_owned()),
            ..VersionDraft::default()
        })
    };
    prompts
        .create(NewPrompt {
            slug: intent.clone(),
            name: "Intent of a message".to_owned(),
            description: None,
            draft: false,
            version: of_intent("One word, billing, bug, praise or other: {{message}}", None)?,
        })
        .await?;
    let draft = of_intent(
        "Classify the message as billing, bug, praise or other, with one word: {{message}}",
        Some("Not in use yet."),
    )?;
    prompts.add_version(&intent, draft, Activation::Draft).await?;
    Ok(())
}

/// The adapter, once for each provider that the demo pretends to have.
struct Clients {
    openai: OpenAi,
    anthropic: OpenAi,
    in_house: OpenAi,
}

impl Clients {
    fn new(base_url: &str) -> Result<Self, Failure> {
        let client = || OpenAi::new("no-key".into()).with_base_url(base_url);
        Ok(Self {
            openai: client()?,
            anthropic: client()?.with_provider_name("anthropic"),
            in_house: client()?.with_provider_name("in-house"),
        })
    }
}

/// One render and its call; answers whether the call succeeded.
async fn call(engine: &PromptEngine, clients: &Clients, index: u32) -> Result<bool, Failure> {
    let trouble = trouble(index);
    let mark = trouble.map_or(String::new(), |mark| format!(" [{mark}]"));
    let version = index.is_multiple_of(5).then_some(1);
    let (slug, values) = match index % 7 {
        0 | 3 => {
            let name = NAMES[pick(index, NAMES.len())];
            let plan = ["free", "pro", "team"][pick(index / 7, 3)];
            // The first version knows no plan.
            let values = if version.is_some() {
                params! { "name" => format!("{name}{mark}") }
            } else {
                params! { "name" => name, "plan" => format!("{plan}{mark}") }
            };
            ("welcome-mail", values)
        }
        1 | 4 | 6 => {
            let ticket = TICKETS[pick(index, TICKETS.len())];
            ("summarise-ticket", params! { "ticket" => format!("{ticket}{mark}") })
        }
        _ => {
            let message = MESSAGES[pick(index, MESSAGES.len())];
            ("classify-intent", params! { "message" => format!("{message}{mark}") })
        }
    };
    let mut render = engine
        .render(slug, values)
        .session(format!("session-{}", index / 4))
        .user(format!("user-{}", index % 23))
        .environment(if index % 6 == 5 { "staging" } else { "production" });
    if let Some(version) = version {
        render = render.version(version);
    }
    let rendered = render.await?;
    if index % 19 == 18 {
        return Ok(true); // rendered for a look, and never sent
    }
    let (client, model) = match index % 11 {
        4 => (&clients.anthropic, Some("claude-haiku-4-5")),
        9 => (&clients.in_house, Some("house-llama-8b")),
        _ => (&clients.openai, None),
    };
    let mut execute = rendered
        .execute_with(client)
        .timeout(TIMEOUT)
        .metadata(json!({"source": "demo", "call": index}));
    if let Some(model) = model {
        execute = execute.model(model);
    }
    let is_stream = index.is_multiple_of(3) || matches!(trouble, Some("frame-error" | "cut"));
    if !is_stream {
        return Ok(execute.await.is_ok());
    }
    let Ok(mut stream) = execute.stream().await else { return Ok(false) };
    let mut events = 0;
    while let Some(event) = stream.next().await {
        events += 1;
        if event.is_err() || (index % 61 == 60 && events == 3) {
            return Ok(false); // dropped half-way: recorded as cancelled
        }
    }
    Ok(true)
}

/// What is to go wrong with a call, as a mark that the server obeys.
fn trouble(index: u32) -> Option<&'static str> {
    Some(match index % 67 {
        5 | 27 => "fail:429",
        13 => "fail:500",
        20 => "fail:503",
        33 => "error:context_length_exceeded",
        40 => "error:content_filter",
        46 => "frame-error",
        50 => "hang",
        56 => "cut",
        62 => "nousage",
        // Some that are merely slow.
        9 | 24 | 36 | 57 => "slow",
        _ => return None,
    })
}

fn pick(index: u32, length: usize) -> usize {
    // Not the plain remainder, so that it does not march in step with the rest.
    let mixed = u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    usize::try_from(mixed).unwrap_or(0) % length
}

const NAMES: [&str; 6] = ["Ada", "Grace", "Alan", "Barbara", "Edsger", "Margaret"];

const TICKETS: [&str; 4] = [
    "I was charged twice in March, once on the 3rd and once on the 4th. The second charge has no \
     invoice. Please send the money back and tell me that April will be right.",
    "Since the update of Tuesday the export hangs at 80 % when a project has more than 500 files. \
     Smaller projects work. I tried two browsers. We need the export for an audit on Friday.",
    "We are twelve people now and would like to change from Pro to Team. Will our templates and \
     the history stay, and can we keep paying once a year?",
    "The password mail never arrives. I looked in the spam folder and our administrator sees \
     nothing in the log of the mail server. A colleague with another domain got hers at once.",
];

const MESSAGES: [&str; 5] = [
    "why is there a second charge on my card??",
    "the export hangs again",
    "love the new editor, thank you!",
    "do you have an office in Lisbon?",
    "cancel my plan at the end of the month please",
];
