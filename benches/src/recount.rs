//! What the answers over a set must be, counted from its calls one by one, with nothing of a store.

use prompt_engine_core::{
    Bucket, BucketCursor, BucketWidth, ExecutionId, Status, TimeRange, Timestamp, Zone,
};

use crate::answer::{Answer, Percentiles, Sums, groups};
use crate::set::{Fact, Set, moment};

/// Which calls of a set count: those of a range, and of what is named.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked {
    /// When they were rendered, and sent.
    pub range: TimeRange,
    /// The place of their prompt.
    pub prompt: Option<usize>,
    /// The place of their environment.
    pub environment: Option<usize>,
    /// The number of their session.
    pub session: Option<u64>,
}

/// What an answer is grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// Environments.
    Environment,
    /// Providers.
    Provider,
    /// Models.
    Model,
    /// Prompts.
    Prompt,
    /// The prompts with the most uses, so many of them.
    TopPrompts(usize),
    /// The prompts of which a call failed.
    FailingPrompts,
    /// Versions of a prompt.
    Version,
    /// Days of a zone.
    Day(Zone),
    /// Prompts and models.
    PromptModel,
    /// Prompts and days of UTC.
    PromptDay,
}

impl Grouping {
    /// What it is called in an answer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Prompt => "prompt",
            Self::TopPrompts(_) => "top_prompt",
            Self::FailingPrompts => "failing_prompt",
            Self::Version => "version",
            Self::Day(_) => "day",
            Self::PromptModel => "prompt_model",
            Self::PromptDay => "prompt_day",
        }
    }
}

/// Numbers of a group.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    uses: u64,
    executions: u64,
    errors: u64,
    priced: u64,
    input: u64,
    output: u64,
    cost_pico: u64,
}

impl Count {
    fn execution(&mut self, fact: &Fact) {
        let failed = fact.status != Status::Success;
        self.executions += 1;
        self.errors += u64::from(failed);
        self.priced += u64::from(!failed);
        self.input += fact.input;
        self.output += fact.output;
        self.cost_pico += fact.cost_pico;
    }

    fn sums(&self) -> Sums {
        Sums {
            uses: Some(self.uses),
            executions: Some(self.executions),
            errors: Some(self.errors),
            priced: Some(self.priced),
            input_tokens: Some(self.input),
            output_tokens: Some(self.output),
            cost_pico: Some(self.cost_pico),
        }
    }
}

/// Days of a zone, numbered as they are met.
#[derive(Debug)]
struct Days {
    bucket: Bucket,
    cursor: BucketCursor,
    starts: Vec<Timestamp>,
}

impl Days {
    fn new(zone: Zone) -> Self {
        let bucket = Bucket { width: BucketWidth::Day, zone };
        Self { bucket, cursor: BucketCursor::new(bucket), starts: Vec::new() }
    }

    fn number(&mut self, at: Timestamp) -> usize {
        let start = self.cursor.start_of(at);
        // Calls come in the order of time but for milliseconds.
        self.starts.iter().rposition(|known| *known == start).unwrap_or_else(|| {
            self.starts.push(start);
            self.starts.len() - 1
        })
    }

    fn label(&self, number: usize) -> String {
        self.bucket.label(self.starts[number])
    }
}

/// Groups of one kind, by a number that each has.
#[derive(Debug)]
struct Groups {
    by: Grouping,
    days: Days,
    counts: Vec<Count>,
}

impl Groups {
    fn new(by: Grouping) -> Self {
        let zone = if let Grouping::Day(zone) = by { zone } else { Zone::UTC };
        Self { by, days: Days::new(zone), counts: Vec::new() }
    }

    fn count(&mut self, set: &Set, fact: &Fact, at: Timestamp) -> &mut Count {
        let number = match self.by {
            Grouping::Environment => fact.environment,
            Grouping::Provider => fact.model % 3,
            Grouping::Model => fact.model,
            Grouping::Prompt | Grouping::TopPrompts(_) | Grouping::FailingPrompts => fact.prompt,
            Grouping::Version => fact.version as usize,
            Grouping::Day(_) => self.days.number(at),
            Grouping::PromptModel => fact.prompt * set.models().len() + fact.model,
            Grouping::PromptDay => self.days.number(at) * set.prompts().len() + fact.prompt,
        };
        if number >= self.counts.len() {
            self.counts.resize_with(number + 1, Count::default);
        }
        &mut self.counts[number]
    }

    fn label(&self, set: &Set, number: usize) -> String {
        let (models, prompts) = (set.models(), set.prompts().len());
        match self.by {
            Grouping::Environment => set.environments()[number].to_string(),
            Grouping::Provider => models[number].0.to_string(),
            Grouping::Model => models[number].1.to_string(),
            Grouping::Prompt | Grouping::TopPrompts(_) | Grouping::FailingPrompts => {
                Set::slug(number)
            }
            Grouping::Version => number.to_string(),
            Grouping::Day(_) => self.days.label(number),
            Grouping::PromptModel => {
                let (prompt, model) = (number / models.len(), number % models.len());
                format!("{} {}", Set::slug(prompt), models[model].1)
            }
            Grouping::PromptDay => {
                let (day, prompt) = (number / prompts, number % prompts);
                format!("{} {}", Set::slug(prompt), self.days.label(day))
            }
        }
    }

    fn finish(self, set: &Set) -> crate::answer::Groups {
        let mut kept: Vec<(String, Count)> = (self.counts.iter().enumerate())
            .filter(|(_, count)| count.uses + count.executions > 0)
            .map(|(number, count)| (self.label(set, number), *count))
            .collect();
        if let Grouping::TopPrompts(limit) = self.by {
            kept.sort_by(|(a_name, a), (b_name, b)| {
                (b.uses, b.executions, a_name).cmp(&(a.uses, a.executions, b_name))
            });
            kept.truncate(limit);
        }
        if self.by == Grouping::FailingPrompts {
            kept.retain(|(_, count)| count.errors > 0);
        }
        groups(kept.into_iter().map(|(label, count)| (label, count.sums())))
    }
}

/// The answer about `asked`, grouped by each of `by`, with the ids of the last `recent` failures.
pub fn recount(set: &Set, asked: &Asked, by: &[Grouping], recent: usize) -> Answer {
    let mut total = Count::default();
    let mut latencies: Vec<u64> = Vec::new();
    let mut failures: Vec<(i64, ExecutionId)> = Vec::new();
    let mut parts: Vec<Groups> = by.iter().map(|by| Groups::new(*by)).collect();
    let from = asked
        .range
        .from
        .map_or(0, |from| set.first_from(from.as_micros().saturating_sub(Set::MOST_DELAY_MICROS)));
    let to = asked.range.to.map_or(set.calls(), |to| set.first_from(to.as_micros()));
    for call in from..to {
        let fact = set.fact(call);
        if asked.prompt.is_some_and(|prompt| prompt != fact.prompt)
            || asked.environment.is_some_and(|environment| environment != fact.environment)
            || asked.session.is_some_and(|session| session != fact.session)
        {
            continue;
        }
        let rendered_at = moment(fact.rendered_at);
        if asked.range.contains(rendered_at) {
            total.uses += 1;
            parts.iter_mut().for_each(|part| part.count(set, &fact, rendered_at).uses += 1);
        }
        let sent_at = moment(fact.sent_at);
        if !asked.range.contains(sent_at) {
            continue;
        }
        total.execution(&fact);
        parts.iter_mut().for_each(|part| part.count(set, &fact, sent_at).execution(&fact));
        let place = usize::try_from(fact.latency_ms).unwrap_or(usize::MAX);
        if place >= latencies.len() {
            latencies.resize(place + 1, 0);
        }
        latencies[place] += 1;
        if recent > 0 && fact.status != Status::Success {
            failures.push((fact.sent_at, ExecutionId::from_bytes(set.ids(call, &fact).1)));
        }
    }
    failures.sort_unstable_by(|a, b| b.cmp(a));
    failures.truncate(recent);
    Answer {
        total: total.sums(),
        latency_ms: Some(percentiles(&latencies)),
        groups: parts.into_iter().map(|part| (part.by.name(), part.finish(set))).collect(),
        recent: Some(failures.into_iter().map(|(_, id)| id.to_string()).collect()),
    }
}

/// Of latencies that are counted by the millisecond.
#[allow(clippy::cast_precision_loss, reason = "a mean and milliseconds are shown, never added up")]
fn percentiles(counts: &[u64]) -> Percentiles {
    let count: u64 = counts.iter().sum();
    let sum: u64 = (0..).zip(counts).map(|(ms, count)| ms * count).sum();
    let at = |percent: u64| {
        let rank = (count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map(|ms| ms as f64)
    };
    Percentiles {
        average: (count > 0).then(|| sum as f64 / count as f64),
        p50: at(50),
        p90: at(90),
        p95: at(95),
        p99: at(99),
    }
}
