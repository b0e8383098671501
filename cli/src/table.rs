//! Tables that fit the terminal, and bars.
//! Invariant: a table is never wider than the terminal, or than 160 columns where there is none.

use std::io::IsTerminal;

use comfy_table::presets::NOTHING;
use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width,
};
use prompt_engine::{Status, Timestamp, Usd};

use crate::failure::Failure;
use crate::output::{printable, say};

/// Columns of a table that goes to no terminal: a list of calls needs no line break in them.
const PIPED_WIDTH: u16 = 160;
/// A terminal with fewer columns has no room for all of a list of calls.
const LIST_WIDTH: u16 = 140;
/// A terminal that says it has fewer columns is not believed.
const LEAST_WIDTH: u16 = 20;
/// Characters of the longest bar.
const BAR: u32 = 20;

/// A table whose columns have a name and a side: `>` before the name aligns to the right.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    // The stream it is printed to takes the colours away where they do not belong.
    table.enforce_styling();
    // Some terminals say that they have no columns at all.
    if !std::io::stdout().is_terminal() || table.width().is_none_or(|width| width < LEAST_WIDTH) {
        table.set_width(PIPED_WIDTH);
    }
    if columns.is_empty() {
        return table;
    }
    table.set_header(
        columns
            .iter()
            .map(|name| Cell::new(name.trim_start_matches('>')).add_attribute(Attribute::Bold)),
    );
    for (index, name) in columns.iter().enumerate() {
        if name.starts_with('>')
            && let Some(column) = table.column_mut(index)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A table of names and values, without a heading.
pub(crate) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, String)>) -> Table {
    let mut table = table(&[]);
    for (name, value) in facts {
        table.add_row([cell(name).add_attribute(Attribute::Bold), cell(value)]);
    }
    table
}

/// A cell of any text.
pub(crate) fn cell(text: impl AsRef<str>) -> Cell {
    Cell::new(printable(text.as_ref()).replace('\t', "    "))
}

/// A status in its colour.
pub(crate) fn status(status: Status) -> Cell {
    cell(status.as_str()).fg(match status {
        Status::Success => Color::Green,
        Status::Error | Status::Timeout => Color::Red,
        Status::Pending | Status::Cancelled => Color::Yellow,
    })
}

/// A bar as long as `share` of the longest says, from 0 to 1.
pub(crate) fn bar(share: f64) -> Cell {
    let eighths = f64::from(BAR * 8) * share.clamp(0.0, 1.0);
    let mut text = String::new();
    for place in 0..BAR {
        let filled = eighths - f64::from(place * 8);
        text.push(match filled {
            f if f >= 7.5 => '█',
            f if f >= 5.5 => '▊',
            f if f >= 3.5 => '▌',
            f if f >= 1.0 => '▎',
            _ => break,
        });
    }
    Cell::new(text).fg(Color::Cyan)
}

/// Prints the table.
pub(crate) fn show(table: &Table) -> Result<(), Failure> {
    table.lines().try_for_each(|line| say(line.trim_end()))
}

/// A whole number with commas between thousands.
pub(crate) fn number(number: u64) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The whole number nearest to one that is not negative, with commas between thousands.
pub(crate) fn rounded(number: f64) -> String {
    grouped(&format!("{number:.0}"))
}

/// Singular or plural.
pub(crate) fn count(many: u64, one: &str) -> String {
    format!("{} {one}{}", number(many), if many == 1 { "" } else { "s" })
}

/// A fraction as a percentage; a dash where there is none.
pub(crate) fn percent(fraction: Option<f64>) -> String {
    fraction.map_or("-".to_owned(), |fraction| format!("{:.1} %", fraction * 100.0))
}

/// Milliseconds for people; a dash where there are none.
pub(crate) fn milliseconds(ms: Option<f64>) -> String {
    match ms {
        None => "-".to_owned(),
        Some(ms) if ms < 1000.0 => format!("{ms:.0} ms"),
        Some(ms) if ms < 120_000.0 => format!("{:.2} s", ms / 1000.0),
        Some(ms) if ms < 7_200_000.0 => format!("{:.1} min", ms / 60_000.0),
        Some(ms) => format!("{:.1} h", ms / 3_600_000.0),
    }
}

/// A moment to the second, in UTC.
pub(crate) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    let seconds = text.get(..19).unwrap_or(&text);
    format!("{}Z", seconds.replace('T', " "))
}

/// Dollars for people: two decimals, and below a dollar four digits that say something.
pub(crate) fn dollars(amount: Usd) -> String {
    let text = amount.to_string();
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let zeros = decimals.len() - decimals.trim_start_matches('0').len();
    let keep = if whole == "0" { zeros + 4 } else { 2 };
    let rounded = amount.as_decimal().round_dp(u32::try_from(keep).unwrap_or(12));
    let text = rounded.to_string();
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    format!("${}.{:0<2}", grouped(whole), decimals.trim_end_matches('0'))
}

/// What is said of a cost: the known amount, and how many calls it leaves out.
pub(crate) fn cost(amount: Usd, priced: u64, unpriced: u64) -> String {
    match (priced, unpriced) {
        (0, 0) => "-".to_owned(),
        (0, _) => "unknown".to_owned(),
        (_, 0) => dollars(amount),
        _ => format!("{} + {} unpriced", dollars(amount), number(unpriced)),
    }
}

/// How long a bar is for `part`, where the longest is for `most`.
pub(crate) fn share(part: u64, most: u64) -> f64 {
    // Thousandths are finer than a bar shows.
    let thousandths = u128::from(part) * 1_000 / u128::from(most.max(1));
    f64::from(u32::try_from(thousandths).unwrap_or(1_000)) / 1_000.0
}

/// Keeps the ids in the first column on one line, as they are to be copied; where that leaves no
/// room, the columns `spare` are left out.
pub(crate) fn whole_ids(table: &mut Table, spare: &[usize]) {
    let narrow = table.width().is_some_and(|width| width < LIST_WIDTH);
    if let Some(ids) = table.column_mut(0) {
        ids.set_constraint(ColumnConstraint::ContentWidth);
    }
    // A moment breaks between its day and its time, and nowhere else.
    if let Some(moments) = table.column_mut(1) {
        moments.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(12)));
    }
    for index in spare.iter().filter(|_| narrow) {
        if let Some(column) = table.column_mut(*index) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
}

/// Keeps a column on one line: half an amount is another amount.
pub(crate) fn whole(table: &mut Table, index: usize) {
    if let Some(column) = table.column_mut(index)
        && !column.is_hidden()
    {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
}

/// Leaves out as few of the columns `spare` as make every other fit on one line, the first first;
/// none where that takes more than all of them.
pub(crate) fn make_room(table: &mut Table, spare: &[usize]) {
    let widths: Vec<usize> =
        table.column_max_content_widths().into_iter().map(|width| usize::from(width) + 2).collect();
    let (all, room) =
        (widths.iter().sum::<usize>(), usize::from(table.width().unwrap_or(PIPED_WIDTH)));
    let mut left = all;
    let taken = spare.iter().take_while(|index| {
        let fits = left <= room;
        left = left.saturating_sub(widths.get(**index).copied().unwrap_or(0));
        !fits
    });
    let taken: Vec<usize> = taken.copied().collect();
    let width_of = |index: &usize| widths.get(*index).copied().unwrap_or(0);
    if all - taken.iter().map(width_of).sum::<usize>() > room {
        return;
    }
    for index in taken {
        if let Some(column) = table.column_mut(index) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_say_something_however_small() {
        for (amount, shown) in [
            ("0", "$0.00"),
            ("0.5", "$0.50"),
            ("0.000014999", "$0.000015"),
            ("0.0001234567", "$0.0001235"),
            ("0.99999", "$1.00"),
            ("12.345", "$12.34"),
            ("1234", "$1,234.00"),
            ("1234567.5", "$1,234,567.50"),
            ("0.000000000001", "$0.000000000001"),
        ] {
            assert_eq!(dollars(amount.parse().unwrap()), shown);
        }
        assert_eq!(cost(Usd::ZERO, 0, 3), "unknown");
        assert_eq!(cost("1".parse().unwrap(), 2, 1_000), "$1.00 + 1,000 unpriced");
    }

    #[test]
    fn room_is_made_by_leaving_out_as_few_columns_as_it_takes() {
        let shown = |name: usize| {
            let mut rows = table(&["Name", "A", "B"]);
            rows.set_width(40);
            rows.add_row([cell("n".repeat(name)), cell("a".repeat(10)), cell("b".repeat(10))]);
            make_room(&mut rows, &[2, 1]);
            let text = rows.to_string();
            (text.contains(&"n".repeat(name)), text.contains('A'), text.contains('B'))
        };
        assert_eq!(shown(10), (true, true, true));
        assert_eq!(shown(20), (true, true, false));
        assert_eq!(shown(30), (true, false, false));
        assert_eq!(shown(50), (false, true, true));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_000), "1,000");
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(rounded(1_587.6), "1,588");
        assert_eq!(count(1, "call"), "1 call");
        assert_eq!(milliseconds(Some(999.4)), "999 ms");
        assert_eq!(milliseconds(Some(1500.0)), "1.50 s");
        assert_eq!(milliseconds(Some(7_199_000.0)), "120.0 min");
        assert_eq!(milliseconds(Some(9_000_000.0)), "2.5 h");
        assert_eq!(share(1, 0), 1.0);
        assert_eq!(share(u64::MAX, u64::MAX), 1.0);
    }
}
