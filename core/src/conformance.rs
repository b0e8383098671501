//! The suite that every store passes: what the store traits promise, one case a promise.
//! Not API-stable: a new release may add cases. The list of cases lives once, in
//! [`conformance_suite!`](crate::conformance_suite); no store picks from it.
//! Cases know nothing of how a store works: they write, ask, and compare with what they wrote.
//!
//! # Example: the suite over a store of your own
//! ```
//! # #![allow(unused)]
//! use std::sync::Arc;
//! use prompt_engine_core::{MemoryStore, Store, conformance::Fixture};
//!
//! async fn open() -> Fixture {
//!     let store = MemoryStore::new();
//!     let same = store.clone();
//!     Fixture::new(store, move || {
//!         let same = same.clone();
//!         async move { Ok(Arc::new(same) as Arc<dyn Store>) }
//!     })
//! }
//!
//! prompt_engine_core::conformance_suite!(open);
//! ```
#![allow(clippy::unwrap_used, reason = "a case fails by a panic, as any test")]

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::store::{Appended, Store};

pub mod aggregate;
pub mod append;
pub mod arbitrary;
pub mod cubes;
pub mod hostile;
pub mod lists;
pub mod model;
pub mod payloads;
pub mod prices;
pub mod prompts;
pub mod prune;
mod recount;
pub mod reopen;
pub mod restore;
pub mod revise;

/// How long a case may take before it counts as hanging.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// Opens another handle on the data of a fixture.
pub type Reopen = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Store>>> + Send + Sync>;

/// What a case gets: a fresh store that holds nothing, prices neither, and a way to open it again.
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Opens the same data again, for a fresh handle. A store that keeps nothing outside the
    /// process gives the same handle again.
    pub reopen: Reopen,
    /// What must live as long as the store: a temporary directory, a server.
    pub guard: Box<dyn Any + Send>,
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Fixture {
    /// A fixture of `store`, which `reopen` opens again.
    pub fn new<F>(store: impl Store, reopen: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Arc<dyn Store>>> + Send + 'static,
    {
        Self {
            store: Arc::new(store),
            reopen: Box::new(move || Box::pin(reopen())),
            guard: Box::new(()),
        }
    }

    /// The fixture, with something that must live as long as its store.
    #[must_use]
    pub fn with_guard(mut self, guard: impl Any + Send) -> Self {
        self.guard = Box::new(guard);
        self
    }

    /// The fixture with its store dropped and opened again.
    async fn reopened(self) -> Self {
        let Self { store, reopen, guard } = self;
        drop(store);
        let store = reopen().await.unwrap();
        Self { store, reopen, guard }
    }

    /// Appends records that must not be refused.
    async fn append(&self, records: &[Record]) -> Appended {
        self.store.append(records).await.unwrap()
    }
}

/// Runs one case on a runtime of its own, with threads, so that races are real.
///
/// # Panics
/// If the case fails, or takes five minutes.
pub fn run<O, C>(open: impl FnOnce() -> O, case: impl FnOnce(Fixture) -> C)
where
    O: Future<Output = Fixture>,
    C: Future<Output = ()>,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let case = async { case(open().await).await };
        tokio::time::timeout(TIME_LIMIT, case).await.expect("the case hangs");
    });
}

/// The error of `result`, which must be one of `kind`.
#[track_caller]
fn refused<T: fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Ok(value) => panic!("this should be refused as {kind:?}: {value:?}"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{}", error.chain());
            error
        }
    }
}

/// The seed in `PROMPT_ENGINE_SEED`, or else `default`. Every failure of a random case names its
/// seed, so that it can be run again.
fn seeds(default: &[u64]) -> Vec<u64> {
    match std::env::var("PROMPT_ENGINE_SEED") {
        Ok(text) => vec![text.trim().parse().expect("PROMPT_ENGINE_SEED is no number")],
        Err(_) => default.to_vec(),
    }
}

/// Makes one named test of every case of the suite, over the store that `open` opens.
///
/// `open` is an `async fn open() -> Fixture`, called once for each case: every case has a fresh,
/// empty store, without any prices that a store may be born with.
#[macro_export]
macro_rules! conformance_suite {
    (@tests ($open:path) $($subject:ident { $($case:ident,)* })*) => {
        $(
            mod $subject {
                #[allow(unused_imports, reason = "`open` may be given by a full path")]
                use super::*;
                $(
                    #[test]
                    fn $case() {
                        $crate::conformance::run($open, $crate::conformance::$subject::$case);
                    }
                )*
            }
        )*
    };
    (@names () $($subject:ident { $($case:ident,)* })*) => {
        &[$($((stringify!($subject), stringify!($case)),)*)*]
    };
    (@list $what:ident $($open:path)?) => {
        $crate::conformance_suite! {
            @$what ($($open)?)
            prompts {
                a_prompt_and_its_first_version_read_back_as_written,
                a_version_without_settings_reads_back_without_them,
                temperatures_read_back_bit_for_bit,
                a_prompt_may_have_no_version_yet,
                a_prompt_arrives_with_all_its_versions,
                versions_of_one_number_arrive_not_at_all,
                a_taken_slug_or_id_conflicts_and_changes_nothing,
                an_update_of_a_stale_revision_conflicts_and_changes_nothing,
                a_taken_version_number_conflicts_and_changes_nothing,
                an_update_of_an_unknown_prompt_is_not_found,
                of_racing_writers_of_version_4_exactly_one_wins,
                of_racing_inserts_of_a_slug_exactly_one_wins,
                activation_and_rollback_are_kept,
                versions_are_listed_newest_first_page_by_page,
                prompts_are_listed_by_slug_page_by_page,
                prompt_lists_refuse_a_foreign_cursor,
            }
            append {
                records_read_back_as_written,
                an_empty_batch_changes_nothing,
                a_refused_record_takes_its_whole_batch_with_it,
                a_refused_batch_leaves_pending_executions_pending,
                the_same_batch_again_changes_nothing,
                overlapping_batches_store_each_record_once,
                a_record_twice_in_a_batch_is_stored_once,
                a_batch_may_begin_and_end_the_same_execution,
                records_of_one_batch_may_conflict_with_each_other,
                what_never_changes_conflicts_when_it_does,
                a_final_execution_replaces_its_pending_self,
                a_late_pending_execution_is_ignored,
                the_first_final_execution_wins,
                an_execution_may_come_before_its_usage,
                a_record_needs_no_prompt,
                an_invalid_execution_is_refused,
                json_nested_too_deep_is_refused,
                ten_thousand_records_are_one_batch,
                concurrent_appends_lose_nothing,
                of_racing_final_executions_exactly_one_wins,
            }
            lists {
                lists_of_an_empty_store_are_empty,
                every_filter_finds_what_it_should,
                oldest_first_is_the_list_turned_round,
                lists_hold_payloads_where_they_are_asked_for,
                lists_of_one_usage_hold_its_own_alone,
                equal_times_are_ordered_by_id,
                the_last_page_has_no_next,
                pages_stay_stable_while_newer_records_come,
                a_cursor_needs_no_record_at_its_place,
                record_lists_refuse_a_foreign_cursor,
                the_slowest_come_first_and_of_equals_the_newest,
                the_slowest_are_found_by_their_cells,
                calls_without_a_latency_are_not_among_the_slowest,
            }
            aggregate {
                an_empty_store_adds_up_to_one_row_of_zeros,
                an_empty_range_adds_up_to_one_row_of_zeros,
                a_range_is_half_open_to_the_microsecond,
                uses_are_null_where_the_question_needs_an_execution,
                renders_and_calls_alone_have_rows,
                pending_executions_count_but_have_no_price,
                statuses_and_error_categories_are_counted_apart,
                money_is_exact_to_the_pico_dollar,
                unpriced_executions_are_counted_apart,
                tokens_add_up_in_64_bits,
                days_of_berlin_have_23_and_25_hours,
                any_question_is_answered_as_by_a_naive_recount,
                sums_follow_finished_and_revised_executions,
            }
            cubes {
                folding_changes_no_answer,
                ends_inside_a_quarter_are_exact,
                what_was_folded_is_not_counted_again,
                rebuilding_changes_no_answer,
                the_doctor_passes_over_days_without_anything,
                appends_and_folds_at_once_lose_nothing,
                cubes_answer_what_the_records_do,
            }
            payloads {
                texts_of_one_batch_expire_one_by_one,
                batches_that_overlap_store_each_text_once,
                a_call_that_ends_among_others_has_the_texts_of_its_end,
                long_and_short_texts_come_back_page_by_page,
            }
            prices {
                a_new_store_has_no_prices,
                prices_read_back_as_written,
                a_change_at_another_generation_conflicts,
                a_price_of_a_stored_id_is_replaced,
                overlapping_prices_are_refused,
                prices_of_different_lines_may_overlap,
                an_invalid_price_is_refused,
                of_racing_writers_of_prices_exactly_one_wins,
                a_replaced_price_overlaps_nothing,
                prices_price_the_same_after_a_round_trip,
            }
            prune {
                pruning_nothing_changes_nothing,
                payloads_expire_and_their_records_stay,
                records_before_a_moment_are_deleted_everywhere,
                compacting_changes_nothing,
                a_prune_is_bounded_and_says_whether_it_is_done,
                a_record_before_the_horizon_is_refused,
                the_horizon_never_moves_back,
                sums_stay_after_a_prune,
            }
            restore {
                sums_of_pruned_records_are_taken_in_once,
                sums_come_beside_those_that_are_here,
                sums_of_records_that_are_here_change_nothing,
                sums_that_contradict_are_left_out_and_the_others_come,
                sums_that_no_records_add_up_to_are_refused,
                racing_restores_count_nothing_twice,
            }
            revise {
                no_revisions_have_no_outcomes,
                each_revision_has_its_outcome,
                an_expected_cost_is_compared_in_all_its_parts,
                revisions_of_one_execution_come_one_after_the_other,
                sums_follow_a_revision,
                of_racing_revisers_exactly_one_wins_each_execution,
                replaced_costs_are_kept_oldest_first,
                revisions_that_count_past_costs_are_made_once,
                past_costs_of_many_come_one_list_each,
                past_costs_go_with_their_execution,
            }
            hostile {
                payloads_hold_any_text,
                an_empty_payload_is_not_a_missing_one,
                payloads_hold_any_json,
                labels_are_told_apart_byte_by_byte,
                prompts_hold_any_text,
            }
            reopen {
                everything_is_there_after_opening_again,
            }
            model {
                any_sequence_of_operations_matches_the_memory_store,
            }
        }
    };
    ($open:path) => {
        $crate::conformance_suite!(@list tests $open);
    };
}
