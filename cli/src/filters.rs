//! The options that say which records count: a range of time, a zone, and what they are of.
//! Invariant: `--from` is inclusive, `--to` exclusive, a bare date is midnight in `--tz`.

use std::time::Duration;

use clap::Args;
use prompt_engine::{
    Bucket, BucketWidth, Filter, Label, PromptEngine, Slug, TimeRange, Timestamp, Zone,
    parse_moment,
};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// When records started.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which time")]
pub(crate) struct RangeArgs {
    /// From this moment on: 2026-01-31, or 2026-01-31T10:00, or with Z or an offset.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Until before this moment.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// The time that ends now: 30m, 24h, 7d or 2w.
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["from", "to"], allow_hyphen_values = true)]
    last: Option<String>,
    /// The zone of dates and days: Europe/Berlin, or +05:45.
    #[arg(long, value_name = "ZONE", default_value = "UTC", allow_hyphen_values = true)]
    tz: String,
}

impl RangeArgs {
    /// The zone.
    pub(crate) fn zone(&self) -> Result<Zone, Failure> {
        self.tz.parse().map_err(|error| Failure::option("--tz", &error))
    }

    /// The range, and `default` where none is asked for.
    pub(crate) fn range(&self, default: TimeRange) -> Result<TimeRange, Failure> {
        let zone = self.zone()?;
        if let Some(last) = &self.last {
            return Ok(TimeRange::last(parse_span("--last", last)?));
        }
        if self.from.is_none() && self.to.is_none() {
            return Ok(default);
        }
        let moment =
            |name, text: Option<&String>| text.map(|text| moment(name, text, zone)).transpose();
        let (from, to) = (moment("--from", self.from.as_ref())?, moment("--to", self.to.as_ref())?);
        TimeRange::new(from, to).map_err(|error| Failure::option("--from and --to", &error))
    }

    /// What to call `range`, which this gave; `default` names the one that is taken where none is
    /// asked for.
    pub(crate) fn said(&self, range: TimeRange, default: &str) -> Result<String, Failure> {
        let zone = self.zone()?;
        let bounds = bounds(range, zone);
        Ok(match &self.last {
            Some(last) => format!("The last {last}: {bounds}"),
            None if self.from.is_some() || self.to.is_some() => bounds,
            None if range == TimeRange::all() => default.to_owned(),
            None => format!("{default}: {bounds}"),
        })
    }
}

/// From when to when a range goes, on the clocks of `zone`.
pub(crate) fn bounds(range: TimeRange, zone: Zone) -> String {
    // The label of a quarter of an hour shows any minute, and offsets are whole minutes.
    let clock = Bucket { width: BucketWidth::QuarterHour, zone };
    let show = |at: Timestamp| {
        let mut text = hour(&clock.label(at));
        let seconds = at.as_micros().div_euclid(1_000_000).rem_euclid(60);
        if seconds > 0 {
            text.insert_str("2026-01-31 10:00".len(), &format!(":{seconds:02}"));
        }
        text
    };
    match (range.from, range.to) {
        (Some(from), Some(to)) => format!("{} to {}", show(from), show(to)),
        (Some(from), None) => format!("since {}", show(from)),
        (None, Some(to)) => format!("before {}", show(to)),
        (None, None) => "all time".to_owned(),
    }
}

/// The label of an hour as people write it; that of a day as it is.
pub(crate) fn hour(label: &str) -> String {
    label.replace('T', " ").replace("+00:00", "Z")
}

/// The moment that the option `name` gives.
pub(crate) fn moment(name: &str, text: &str, zone: Zone) -> Result<Timestamp, Failure> {
    parse_moment(text, zone).map_err(|error| Failure::option(name, &error))
}

/// The span that the option `name` gives.
pub(crate) fn parse_span(name: &str, text: &str) -> Result<Duration, Failure> {
    let refuse =
        || Failure::usage(format!("{name}: {text:?} is no span; write 30m, 24h, 7d or 2w"));
    let unit = match text.chars().last().ok_or_else(refuse)? {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(refuse()),
    };
    let digits = &text[..text.len() - 1];
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refuse());
    }
    let many: u64 = digits.parse().map_err(|_| refuse())?;
    many.checked_mul(unit)
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(refuse)
}

/// What records are of.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which records")]
pub(crate) struct FilterArgs {
    /// Only of this prompt.
    #[arg(long, value_name = "SLUG")]
    pub(crate) prompt: Option<Slug>,
    #[command(flatten)]
    pub(crate) rest: MoreFilterArgs,
}

impl FilterArgs {
    /// The filter; a prompt that does not exist is refused.
    pub(crate) async fn filter(&self, engine: &PromptEngine) -> Result<Filter, Failure> {
        let mut filter = self.rest.filter();
        if let Some(slug) = &self.prompt {
            filter.prompt = Some(engine.prompts().get(slug).await?.id);
        }
        Ok(filter)
    }
}

/// What records are of, besides their prompt.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which records")]
pub(crate) struct MoreFilterArgs {
    /// Only of this environment.
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Option<Label>,
    /// Only of calls that asked this model.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<Label>,
    /// Only of calls to this provider.
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<Label>,
}

impl MoreFilterArgs {
    /// The filter.
    pub(crate) fn filter(&self) -> Filter {
        Filter {
            environment: self.env.clone(),
            model: self.model.clone(),
            provider: self.provider.clone(),
            ..Filter::default()
        }
    }
}

/// How many rows to show, as the value of an option.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    let many = text.parse().ok().filter(|many| *many > 0);
    many.ok_or_else(|| "write a whole number, at least 1".to_owned())
}

/// A JSON object, as the value of an option.
pub(crate) fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("it must be a JSON object such as {\"team\":\"growth\"}".to_owned()),
        Err(error) => Err(format!("it is no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_and_a_unit() {
        assert_eq!(parse_span("--last", "30m").unwrap(), Duration::from_secs(1800));
        assert_eq!(parse_span("--last", "7d").unwrap(), Duration::from_secs(7 * 86_400));
        for text in ["", "d", "0d", "-1d", "7", "7y", "7é", "99999999999999999999d", "+7d"] {
            assert!(parse_span("--last", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_is_named_on_the_clocks_of_its_reader() {
        let at = |text: &str| Some(text.parse().unwrap());
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2026-01-08T12:30:00Z"));
        let range = TimeRange { from, to };
        assert_eq!(bounds(range, Zone::UTC), "2026-01-01 00:00Z to 2026-01-08 12:30Z");
        let berlin = "Europe/Berlin".parse().unwrap();
        let named = bounds(TimeRange { from, to: None }, berlin);
        assert_eq!(named, "since 2026-01-01 01:00+01:00");
        let seconds = TimeRange { from: None, to: at("2026-01-08T12:30:07.5Z") };
        assert_eq!(bounds(seconds, berlin), "before 2026-01-08 13:30:07+01:00");
        assert_eq!(bounds(TimeRange::all(), berlin), "all time");
        let asked = RangeArgs { tz: "UTC".into(), last: Some("7d".into()), ..RangeArgs::default() };
        assert!(asked.said(range, "All").unwrap().starts_with("The last 7d: 2026-01-01 00:00Z"));
    }
}
