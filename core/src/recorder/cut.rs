//! Cuts the payload of a record to a number of bytes, and marks every cut.
//! Invariant: what queries filter, group and add up is never touched, and no cut goes unmarked.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::texts::{each_text, strings};
use super::weight::{bare_weight, map, weight};
use crate::record::{ExecutionPayload, Record, UsagePayload};

/// More than any marker takes: `…[cut: 18446744073709551615 bytes]`. Shorter texts stay.
const MARKER_ROOM: usize = 40;

/// The key under which a map that was cut says so.
const CUT_KEY: &str = "cut";

/// Cuts the payload until the record weighs at most `budget`, if that can be.
///
/// Long texts are cut to one common length, short ones stay whole. Maps of many small values
/// go first where they, not texts, take the room; the whole payload goes where nothing else helps.
pub(super) fn cut(record: &mut Record, budget: usize) {
    if weight(record) <= budget {
        return;
    }
    while weight(record) - texts_weight(record) > budget / 2 && cut_largest_map(record) {}
    let texts = texts_weight(record);
    let room = budget.saturating_sub(weight(record) - texts);
    let level = common_level(record, room);
    each_text(record, strings, &mut |text| cut_text(text, level));
    if weight(record) > budget {
        cut_payload(record);
    }
}

/// The length to cut texts to so that together they take `room` bytes.
fn common_level(record: &mut Record, room: usize) -> usize {
    let mut lengths = Vec::new();
    each_text(record, strings, &mut |text| lengths.push(text.capacity()));
    lengths.sort_unstable();
    let mut room = room;
    let mut left = lengths.len();
    for length in lengths {
        let share = room / left;
        if length > share {
            return share;
        }
        room -= length;
        left -= 1;
    }
    usize::MAX
}

/// Gives back what texts hold beyond their length, which counts as weight.
pub(super) fn shrink(record: &mut Record) {
    each_text(record, strings, &mut String::shrink_to_fit);
}

fn cut_text(text: &mut String, level: usize) {
    if text.capacity() <= level {
        return;
    }
    if text.len() <= level.max(MARKER_ROOM) {
        text.shrink_to_fit();
        return;
    }
    let keep = text.floor_char_boundary(level.saturating_sub(MARKER_ROOM));
    let (kept, gone) = text.split_at(keep);
    let marker = marker(gone.len());
    let mut short = String::with_capacity(kept.len() + marker.len());
    short.push_str(kept);
    short.push_str(&marker);
    *text = short;
}

fn marker(bytes: usize) -> String {
    format!("…[cut: {bytes} bytes]")
}

fn marked_map(bytes: usize) -> Map<String, Value> {
    Map::from_iter([(CUT_KEY.to_owned(), Value::String(marker(bytes)))])
}

/// Replaces the largest map by a marker; `false` where none is left that is worth it.
fn cut_largest_map(record: &mut Record) -> bool {
    let maps: [Option<&mut Map<String, Value>>; 2] = match record {
        Record::Usage(usage) => match usage.payload.as_mut().map(Arc::make_mut) {
            Some(payload) => [Some(&mut payload.parameters), Some(&mut payload.metadata)],
            None => [None, None],
        },
        Record::Execution(execution) => match execution.payload.as_mut().map(Arc::make_mut) {
            Some(payload) => [Some(&mut payload.settings), Some(&mut payload.response_metadata)],
            None => [None, None],
        },
    };
    let largest =
        maps.into_iter().flatten().map(|fields| (map(fields), fields)).max_by_key(|m| m.0);
    match largest {
        Some((bytes, fields)) if bytes > map(&marked_map(bytes)) => {
            *fields = marked_map(bytes);
            true
        }
        _ => false,
    }
}

fn cut_payload(record: &mut Record) {
    let bytes = weight(record) - bare_weight(record);
    match record {
        Record::Usage(usage) => {
            usage.payload =
                Some(Arc::new(UsagePayload { content: marker(bytes), ..UsagePayload::default() }));
        }
        Record::Execution(execution) => {
            execution.payload = Some(Arc::new(ExecutionPayload {
                response_metadata: marked_map(bytes),
                ..ExecutionPayload::default()
            }));
        }
    }
}

fn texts_weight(record: &mut Record) -> usize {
    let mut sum = 0;
    each_text(record, strings, &mut |text| sum += text.capacity());
    sum
}
