//! A series over time as people read it: with its silences, long ones and those at its ends in one line.

use crate::table::number;

/// What is shown of a series.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shown<'a, T> {
    /// A point.
    Point(&'a T),
    /// So many points without anything, one after the other.
    Quiet(usize),
}

/// The most quiet points in a row, between others, that are shown one by one.
const FEW: usize = 24;

/// What to show of `points`; nothing where all are quiet.
pub(crate) fn shown<T>(points: &[T], busy: impl Fn(&T) -> bool) -> Vec<Shown<'_, T>> {
    let mut shown = Vec::new();
    if !points.iter().any(&busy) {
        return shown;
    }
    let mut behind = 0;
    for run in points.chunk_by(|a, b| !busy(a) && !busy(b)) {
        let before = behind;
        behind += run.len();
        let at_end = before == 0 || behind == points.len();
        if run.len() > if at_end { 1 } else { FEW } {
            shown.push(Shown::Quiet(run.len()));
        } else {
            shown.extend(run.iter().map(Shown::Point));
        }
    }
    shown
}

/// What a table says of so many quiet points, in the column of their names.
pub(crate) fn without_calls(many: usize) -> String {
    format!("… {} without calls", number(u64::try_from(many).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_ends_and_long_silences_are_one_line_each() {
        let busy = |point: &u32| *point > 0;
        assert_eq!(shown(&[0, 0], busy), []);
        let [one, none, two] = [1, 0, 2].each_ref().map(Shown::Point);
        let ends = [Shown::Point(&0), one, none, two, Shown::Quiet(2)];
        assert_eq!(shown(&[0, 1, 0, 2, 0, 0], busy), ends);
        let mut points = vec![0; FEW + 1];
        points.insert(0, 1);
        points.push(2);
        assert_eq!(
            shown(&points, busy),
            [Shown::Point(&1), Shown::Quiet(FEW + 1), Shown::Point(&2)]
        );
        points.remove(1);
        assert_eq!(shown(&points, busy).len(), FEW + 2);
    }
}
