//! Moments, zones and buckets where clocks do what clocks do.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn bucket(width: BucketWidth, zone: &str) -> Bucket {
    Bucket { width, zone: zone.parse().unwrap() }
}

fn labels(bucket: Bucket, from: &str, to: &str) -> Vec<String> {
    let range = TimeRange::new(Some(at(from)), Some(at(to))).unwrap();
    bucket.starts_in(range).map(|start| bucket.label(start)).collect()
}

proptest! {
    #[test]
    fn a_timestamp_reads_back_what_it_prints(micros in Timestamp::MIN.0..=Timestamp::MAX.0) {
        let moment = Timestamp::from_micros(micros).unwrap();
        prop_assert_eq!(moment.to_string().parse::<Timestamp>().unwrap(), moment);
        prop_assert_eq!(moment.to_string().len(), 27);
        prop_assert_eq!(Timestamp::from_datetime(moment.to_datetime()).unwrap(), moment);
    }

    #[test]
    fn buckets_follow_each_other_without_gap_or_overlap(
        micros in at("1960-01-01T00:00:00Z").0..at("2040-01-01T00:00:00Z").0,
        zone in prop::sample::select(vec![
            "UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe",
            "America/St_Johns", "Pacific/Apia", "Africa/Casablanca", "America/Havana", "-03:30",
        ]),
        width in prop::sample::select(BucketWidth::ALL.to_vec()),
    ) {
        let bucket = bucket(width, zone);
        let moment = Timestamp::from_micros(micros).unwrap();
        let start = bucket.start_of(moment);
        let next = bucket.next(start);
        prop_assert!(start <= moment && moment < next, "{start} {moment} {next}");
        prop_assert_eq!(bucket.start_of(start), start);
        prop_assert_eq!(bucket.start_of(Timestamp(next.0 - 1)), start);
        prop_assert_eq!(bucket.start_of(next), next);
        let mut cursor = BucketCursor::new(bucket);
        prop_assert_eq!(cursor.start_of(moment), start);
        prop_assert_eq!(cursor.start_of(start), start);
        prop_assert_eq!(cursor.start_of(next), next);
    }
}

#[test]
fn every_zone_reads_back_what_it_prints() {
    let fixed = ["+05:45", "-03:30", "+14:00", "-00:30"];
    for name in chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).chain(fixed) {
        let zone: Zone = name.parse().unwrap();
        assert_eq!(zone.to_string(), name);
        let json = serde_json::to_string(&zone).unwrap();
        assert_eq!(serde_json::from_str::<Zone>(&json).unwrap(), zone);
    }
    assert_eq!("+00:00".parse::<Zone>().unwrap(), Zone::UTC);
    for wrong in ["", "Berlin", "+1", "+25:00", "+01:60", "UTC+1", "europe/berlin"] {
        let error = wrong.parse::<Zone>().unwrap_err();
        assert!(error.to_string().contains(&format!("{wrong:?}")), "{error}");
    }
}

#[test]
fn the_ends_of_the_years_are_kept_and_what_is_beyond_is_refused() {
    assert_eq!(Timestamp::MIN.to_string(), "0001-01-01T00:00:00.000000Z");
    assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
    assert!(Timestamp::from_micros(Timestamp::MIN.0 - 1).is_err());
    assert!(Timestamp::from_micros(Timestamp::MAX.0 + 1).is_err());
    assert!("9999-12-31T23:59:59-00:01".parse::<Timestamp>().is_err());
    assert!("0000-06-01T00:00:00Z".parse::<Timestamp>().is_err());
    let second = Duration::from_secs(1);
    assert_eq!(Timestamp::MAX.checked_add(second), None);
    assert_eq!(Timestamp::MIN.checked_sub(second), None);
    assert_eq!(Timestamp::MAX.saturating_sub(Duration::MAX), Timestamp::MIN);
    for width in BucketWidth::ALL {
        for zone in ["UTC", "+14:00", "-12:00", "Europe/Berlin"] {
            let bucket = bucket(*width, zone);
            for moment in [Timestamp::MIN, Timestamp::MAX] {
                assert!(bucket.start_of(moment) <= moment);
                assert!(bucket.next(bucket.start_of(moment)) >= moment);
            }
        }
    }
}

#[test]
fn a_fraction_finer_than_microseconds_is_cut() {
    assert_eq!(at("2026-01-31T10:00:00.1234569Z"), at("2026-01-31T10:00:00.123456Z"));
    assert_eq!(at("1969-12-31T23:59:59.9999999Z").as_micros(), -1);
    assert_eq!(at("2016-12-31T23:59:60Z"), at("2017-01-01T00:00:00Z"));
}

#[test]
fn a_moment_is_read_in_the_zone_unless_it_has_an_offset() {
    let berlin = "Europe/Berlin".parse().unwrap();
    for (text, expected) in [
        ("2026-01-31", "2026-01-30T23:00:00Z"),
        ("2026-01-31T10:00", "2026-01-31T09:00:00Z"),
        ("2026-01-31 10:00:30", "2026-01-31T09:00:30Z"),
        ("2026-07-31T10:00:30.25", "2026-07-31T08:00:30.25Z"),
        ("2026-01-31T10:00:00-05:00", "2026-01-31T15:00:00Z"),
        ("2026-01-31T10:00Z", "2026-01-31T10:00:00Z"),
        // Shown twice: the earlier.
        ("2026-10-25T02:30", "2026-10-25T00:30:00Z"),
    ] {
        assert_eq!(parse_moment(text, berlin).unwrap(), at(expected), "{text}");
    }
    // America/Sao_Paulo went from 00:00 to 01:00.
    let start = parse_moment("2018-11-04", "America/Sao_Paulo".parse().unwrap()).unwrap();
    assert_eq!(start, at("2018-11-04T03:00:00Z"));
}

#[test]
fn a_moment_that_does_not_exist_is_refused_by_name() {
    for (text, zone, named) in [
        ("2026-02-30", "UTC", "2026-02-30"),
        ("2026-02-30T10:00:00Z", "UTC", "2026-02-30"),
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T02:30"),
        ("2026-01-31T24:00", "UTC", "2026-01-31T24:00"),
        ("2026-01-31T10:00:60", "UTC", "2026-01-31T10:00:60"),
        ("2011-12-30", "Pacific/Apia", "2011-12-30"),
        ("yesterday", "UTC", "yesterday"),
        ("2026-1-3", "UTC", "2026-1-3"),
        ("2026-01-31T", "UTC", "2026-01-31T"),
        ("2026-01-31T10:00.5", "UTC", "2026-01-31T10:00.5"),
        ("2026-01-31T10:00:00.Z", "UTC", "2026-01-31T10:00:00.Z"),
        ("2026-01-3\u{e9}T10:00", "UTC", "2026-01-3"),
        ("", "UTC", "\"\""),
    ] {
        let error = parse_moment(text, zone.parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains(named), "{text}: {error}");
    }
}

#[test]
fn days_of_23_and_25_hours_are_one_bucket_each() {
    let days = bucket(BucketWidth::Day, "Europe/Berlin");
    for (noon, hours) in [
        ("2026-03-28T12:00:00+01:00", 24),
        ("2026-03-29T12:00:00+02:00", 23),
        ("2026-10-25T12:00:00+01:00", 25),
    ] {
        let start = days.start_of(at(noon));
        assert_eq!(days.label(start), noon[..10]);
        assert_eq!(days.next(start).duration_since(start), Duration::from_secs(hours * 3600));
    }
    let hours = bucket(BucketWidth::Hour, "Europe/Berlin");
    assert_eq!(
        labels(hours, "2026-10-24T23:30:00Z", "2026-10-25T02:00:00Z"),
        ["2026-10-25T01:00+02:00", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]
    );
}

#[test]
fn a_day_without_midnight_starts_where_the_clocks_jump() {
    let days = bucket(BucketWidth::Day, "America/Sao_Paulo");
    let start = days.start_of(at("2018-11-04T12:00:00-02:00"));
    assert_eq!(start, at("2018-11-04T01:00:00-02:00"));
    assert_eq!(days.next(start), at("2018-11-05T00:00:00-02:00"));
    assert_eq!(
        labels(days, "2018-11-03T12:00:00-03:00", "2018-11-05T12:00:00-02:00"),
        ["2018-11-03", "2018-11-04", "2018-11-05"]
    );
    assert_eq!(
        labels(
            bucket(BucketWidth::Day, "Pacific/Apia"),
            "2011-12-29T12:00:00-10:00",
            "2012-01-01T00:00:00+14:00"
        ),
        ["2011-12-29", "2011-12-31"]
    );
}

#[test]
fn hours_follow_a_clock_of_three_quarters() {
    for zone in ["Asia/Kathmandu", "+05:45"] {
        let hours = bucket(BucketWidth::Hour, zone);
        let start = hours.start_of(at("2026-01-31T10:20:00Z"));
        assert_eq!(start, at("2026-01-31T10:15:00Z"));
        assert_eq!(hours.label(start), "2026-01-31T16:00+05:45");
        assert_eq!(hours.next(start), at("2026-01-31T11:15:00Z"));
    }
}

#[test]
fn a_shift_of_half_an_hour_cuts_an_hour_in_two() {
    let hours = bucket(BucketWidth::Hour, "Australia/Lord_Howe");
    assert_eq!(
        labels(hours, "2026-10-04T01:00:00+10:30", "2026-10-04T04:00:00+11:00"),
        ["2026-10-04T01:00+10:30", "2026-10-04T02:30+11:00", "2026-10-04T03:00+11:00"]
    );
    assert_eq!(
        labels(hours, "2026-04-05T01:00:00+11:00", "2026-04-05T03:00:00+10:30"),
        ["2026-04-05T01:00+11:00", "2026-04-05T01:30+10:30", "2026-04-05T02:00+10:30"]
    );
}

#[test]
fn a_shift_back_over_midnight_leaves_the_repeated_minutes_to_the_new_day() {
    // America/St_Johns went from 00:01 back to 23:01 on 2010-11-07.
    let days = bucket(BucketWidth::Day, "America/St_Johns");
    let start = days.start_of(at("2010-11-07T12:00:00-03:30"));
    assert_eq!(start, at("2010-11-07T00:00:00-02:30"));
    assert_eq!(days.start_of(at("2010-11-06T23:30:00-03:30")), start);
    assert_eq!(days.label(start), "2010-11-07");
}

#[test]
fn a_range_is_half_open_and_never_ends_before_it_starts() {
    let (one, two) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
    assert!(TimeRange::new(Some(two), Some(one)).is_err());
    assert!(TimeRange::new(Some(one), Some(one)).is_ok_and(|range| !range.contains(one)));
    assert!(TimeRange::all().contains(Timestamp::MAX));
    let range = TimeRange::last_days(30);
    let span = range.to.unwrap().duration_since(range.from.unwrap());
    assert_eq!(span, Duration::from_secs(30 * 86_400));
    let days = bucket(BucketWidth::Day, "UTC");
    assert_eq!(days.starts_in(TimeRange::all()).count(), 0);
    assert_eq!(days.starts_in(TimeRange { from: Some(one), to: Some(two) }).count(), 1);
}
