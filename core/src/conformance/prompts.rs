//! Prompts and their versions: identity, races, lists.

use std::slice;
use std::sync::Arc;

use futures::future::join_all;
use serde_json::json;

use super::arbitrary::{at, label, next, prompt, version};
use super::{Fixture, refused};
use crate::error::ErrorKind;
use crate::id::PromptId;
use crate::parameter::{Parameter, ParameterType, Rules};
use crate::prompt::{Prompt, PromptStatus, PromptVersion};
use crate::query::{Cursor, PageQuery};

/// What is inserted is read back by slug, by id and by version number, each field as it was.
pub async fn a_prompt_and_its_first_version_read_back_as_written(fx: Fixture) {
    let (mut prompt, mut version) = prompt("welcome-mail");
    prompt.description = None;
    prompt.parameters.push(Parameter {
        name: "price".to_owned(),
        kind: ParameterType::Decimal,
        required: false,
        default: Some(json!(0.1)),
        example: Some(json!(null)),
        description: Some(String::new()),
        rules: Rules {
            min_length: Some(0),
            max_length: Some(u64::from(u32::MAX)),
            pattern: Some("^a%_'\"$".to_owned()),
            min: Some("-0.10".parse().unwrap()),
            max: Some("79228162514264337593543950335".parse().unwrap()),
        },
        position: 7,
    });
    version.metadata = json!({"small": 5e-324, "large": f64::MAX, "int": u64::MAX, "n": i64::MIN});
    version.temperature = Some(2.0 - f64::EPSILON);
    fx.store.insert_prompt(&prompt, slice::from_ref(&version)).await.unwrap();
    assert_eq!(fx.store.prompt_by_slug(&prompt.slug).await.unwrap().as_ref(), Some(&prompt));
    assert_eq!(fx.store.prompt(prompt.id).await.unwrap().as_ref(), Some(&prompt));
    assert_eq!(fx.store.version(prompt.id, 1).await.unwrap(), Some(version));
    assert_eq!(fx.store.version(prompt.id, 2).await.unwrap(), None);
    assert_eq!(fx.store.version(PromptId::new(), 1).await.unwrap(), None);
}

/// Whatever may be absent, is.
pub async fn a_version_without_settings_reads_back_without_them(fx: Fixture) {
    let (prompt, first) = prompt("bare");
    let bare = PromptVersion {
        content: String::new(),
        system_message: None,
        model: None,
        temperature: None,
        max_tokens: None,
        metadata: json!({}),
        change_description: None,
        author: None,
        ..first
    };
    fx.store.insert_prompt(&prompt, slice::from_ref(&bare)).await.unwrap();
    assert_eq!(fx.store.version(prompt.id, 1).await.unwrap().as_ref(), Some(&bare));
    let empty = PromptVersion {
        number: 2,
        system_message: Some(String::new()),
        model: Some(label("")),
        temperature: Some(0.0),
        max_tokens: Some(0),
        change_description: Some(String::new()),
        author: Some(String::new()),
        ..bare
    };
    fx.store.update_prompt(&next(&prompt, 2), Some(&empty)).await.unwrap();
    assert_eq!(fx.store.version(prompt.id, 2).await.unwrap(), Some(empty));
}

/// Floats come back bit for bit.
pub async fn temperatures_read_back_bit_for_bit(fx: Fixture) {
    let (mut prompt, first) = prompt("floats");
    fx.store.insert_prompt(&prompt, slice::from_ref(&first)).await.unwrap();
    let mut rng = fastrand::Rng::with_seed(11);
    for number in 2..50 {
        let number_of = rng.f64() * 2.0;
        prompt = next(&prompt, number);
        let mut version = version(&prompt, number);
        version.temperature = Some(number_of);
        version.metadata = json!({"float": number_of, "tiny": number_of * 1e-300});
        fx.store.update_prompt(&prompt, Some(&version)).await.unwrap();
        assert_eq!(fx.store.version(prompt.id, number).await.unwrap(), Some(version));
    }
}

/// A prompt may be made before its first version.
pub async fn a_prompt_may_have_no_version_yet(fx: Fixture) {
    let (mut prompt, version) = prompt("draft");
    prompt =
        Prompt { active_version: None, latest_version: 0, status: PromptStatus::Draft, ..prompt };
    fx.store.insert_prompt(&prompt, &[]).await.unwrap();
    assert_eq!(fx.store.prompt(prompt.id).await.unwrap().as_ref(), Some(&prompt));
    let page = fx.store.list_versions(prompt.id, &PageQuery::default()).await.unwrap();
    assert_eq!((page.items, page.next), (vec![], None));
    fx.store.update_prompt(&next(&prompt, 1), Some(&version)).await.unwrap();
    assert_eq!(fx.store.version(prompt.id, 1).await.unwrap(), Some(version));
}

/// A prompt that was elsewhere before arrives as it is: at its revision, with all its versions.
pub async fn a_prompt_arrives_with_all_its_versions(fx: Fixture) {
    let (prompt, first) = prompt("moved");
    let arrived = Prompt { active_version: Some(2), latest_version: 3, revision: 17, ..prompt };
    let versions = [first, version(&arrived, 3), version(&arrived, 2)];
    fx.store.insert_prompt(&arrived, &versions).await.unwrap();
    assert_eq!(fx.store.prompt(arrived.id).await.unwrap().as_ref(), Some(&arrived));
    let page = fx.store.list_versions(arrived.id, &PageQuery::default()).await.unwrap();
    let [first, third, second] = versions;
    assert_eq!(page.items, [third, second, first]);
    let next = next(&arrived, 4);
    assert_eq!(next.revision, 18);
    fx.store.update_prompt(&next, Some(&version(&arrived, 4))).await.unwrap();
}

/// Two versions of one number are refused, and with them the prompt.
pub async fn versions_of_one_number_arrive_not_at_all(fx: Fixture) {
    let (prompt, first) = prompt("twice");
    let versions = [first.clone(), version(&prompt, 2), first];
    refused(fx.store.insert_prompt(&prompt, &versions).await, ErrorKind::Conflict);
    assert_eq!(fx.store.prompt_by_slug(&prompt.slug).await.unwrap(), None);
    assert_eq!(fx.store.version(prompt.id, 2).await.unwrap(), None);
}

/// A slug and an id are taken once and for all; the loser leaves nothing behind.
pub async fn a_taken_slug_or_id_conflicts_and_changes_nothing(fx: Fixture) {
    let (first, version) = prompt("taken");
    fx.store.insert_prompt(&first, slice::from_ref(&version)).await.unwrap();
    let (same_slug, its_version) = prompt("taken");
    let result = fx.store.insert_prompt(&same_slug, slice::from_ref(&its_version)).await;
    refused(result, ErrorKind::Conflict);
    assert_eq!(fx.store.prompt(same_slug.id).await.unwrap(), None);
    assert_eq!(fx.store.version(same_slug.id, 1).await.unwrap(), None);
    let (other, _) = prompt("other");
    let same_id = Prompt { id: first.id, ..other };
    refused(fx.store.insert_prompt(&same_id, &[]).await, ErrorKind::Conflict);
    assert_eq!(fx.store.prompt_by_slug(&same_id.slug).await.unwrap(), None);
    assert_eq!(fx.store.prompt(first.id).await.unwrap().as_ref(), Some(&first));
    refused(fx.store.insert_prompt(&first, slice::from_ref(&version)).await, ErrorKind::Conflict);
}

/// An update names the revision it was made from.
pub async fn an_update_of_a_stale_revision_conflicts_and_changes_nothing(fx: Fixture) {
    let (first, version_1) = prompt("stale");
    fx.store.insert_prompt(&first, slice::from_ref(&version_1)).await.unwrap();
    let second = next(&first, 2);
    fx.store.update_prompt(&second, Some(&version(&first, 2))).await.unwrap();
    for revision in [0, 1, 2, 4, u64::from(u32::MAX)] {
        let stale = Prompt { revision, name: "Stale".to_owned(), ..second.clone() };
        let result = fx.store.update_prompt(&stale, Some(&version(&first, 3))).await;
        refused(result, ErrorKind::Conflict);
    }
    assert_eq!(fx.store.prompt(first.id).await.unwrap(), Some(second));
    assert_eq!(fx.store.version(first.id, 3).await.unwrap(), None);
}

/// A version that exists is never overwritten, and its prompt is not either.
pub async fn a_taken_version_number_conflicts_and_changes_nothing(fx: Fixture) {
    let (first, version_1) = prompt("versions");
    fx.store.insert_prompt(&first, slice::from_ref(&version_1)).await.unwrap();
    let other = PromptVersion { content: "Another".to_owned(), ..version_1.clone() };
    let result = fx.store.update_prompt(&next(&first, 1), Some(&other)).await;
    refused(result, ErrorKind::Conflict);
    assert_eq!(fx.store.prompt(first.id).await.unwrap().as_ref(), Some(&first));
    assert_eq!(fx.store.version(first.id, 1).await.unwrap(), Some(version_1));
}

/// An update makes no prompt.
pub async fn an_update_of_an_unknown_prompt_is_not_found(fx: Fixture) {
    let (prompt, version) = prompt("unknown");
    let result = fx.store.update_prompt(&next(&prompt, 1), Some(&version)).await;
    refused(result, ErrorKind::NotFound);
    assert_eq!(fx.store.version(prompt.id, 1).await.unwrap(), None);
    assert_eq!(fx.store.prompt_by_slug(&prompt.slug).await.unwrap(), None);
}

/// Of many writers of version 4 one wins, with its prompt and its version.
pub async fn of_racing_writers_of_version_4_exactly_one_wins(fx: Fixture) {
    let (mut prompt, first) = prompt("race");
    fx.store.insert_prompt(&prompt, slice::from_ref(&first)).await.unwrap();
    for number in 2..=3 {
        prompt = next(&prompt, number);
        fx.store.update_prompt(&prompt, Some(&version(&prompt, number))).await.unwrap();
    }
    let writers = (0..16).map(|writer| {
        let store = Arc::clone(&fx.store);
        let prompt = Prompt { name: format!("By {writer}"), ..next(&prompt, 4) };
        let version = PromptVersion { content: format!("By {writer}"), ..version(&prompt, 4) };
        tokio::spawn(async move { store.update_prompt(&prompt, Some(&version)).await })
    });
    let mut winners = Vec::new();
    for (writer, result) in join_all(writers).await.into_iter().enumerate() {
        match result.unwrap() {
            Ok(()) => winners.push(writer),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain()),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    let by = format!("By {}", winners[0]);
    let stored = fx.store.prompt(prompt.id).await.unwrap().unwrap();
    assert_eq!((stored.name, stored.revision), (by.clone(), 4));
    assert_eq!(fx.store.version(prompt.id, 4).await.unwrap().unwrap().content, by);
}

/// Of many inserts of one slug one wins, and only its version is there.
pub async fn of_racing_inserts_of_a_slug_exactly_one_wins(fx: Fixture) {
    let writers = (0..16).map(|_| {
        let store = Arc::clone(&fx.store);
        tokio::spawn(async move {
            let (prompt, version) = prompt("race");
            let won = match store.insert_prompt(&prompt, slice::from_ref(&version)).await {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.chain());
                    false
                }
            };
            (prompt, won)
        })
    });
    let mut winners = 0;
    for result in join_all(writers).await {
        let (prompt, won) = result.unwrap();
        winners += u32::from(won);
        assert_eq!(fx.store.prompt(prompt.id).await.unwrap(), won.then(|| prompt.clone()));
        assert_eq!(fx.store.version(prompt.id, 1).await.unwrap().is_some(), won);
    }
    assert_eq!(winners, 1);
}

/// Activating an older version is an update like any other, and so is going back.
pub async fn activation_and_rollback_are_kept(fx: Fixture) {
    let (first, version_1) = prompt("rollback");
    fx.store.insert_prompt(&first, slice::from_ref(&version_1)).await.unwrap();
    let second = next(&first, 2);
    fx.store.update_prompt(&second, Some(&version(&first, 2))).await.unwrap();
    let back = Prompt {
        active_version: Some(1),
        revision: 3,
        status: PromptStatus::Archived,
        updated_at: at(99),
        description: None,
        parameters: vec![],
        ..second
    };
    fx.store.update_prompt(&back, None).await.unwrap();
    let fx = fx.reopened().await;
    assert_eq!(fx.store.prompt(first.id).await.unwrap().as_ref(), Some(&back));
    assert_eq!(fx.store.version(first.id, 2).await.unwrap(), Some(version(&first, 2)));
    let none = Prompt { active_version: None, revision: 4, ..back };
    fx.store.update_prompt(&none, None).await.unwrap();
    assert_eq!(fx.store.prompt_by_slug(&first.slug).await.unwrap(), Some(none));
}

/// Versions come newest first, by number, and pages have no seam.
pub async fn versions_are_listed_newest_first_page_by_page(fx: Fixture) {
    let (mut prompt, first) = prompt("listed");
    let (other, other_version) = super::arbitrary::prompt("another");
    fx.store.insert_prompt(&prompt, slice::from_ref(&first)).await.unwrap();
    fx.store.insert_prompt(&other, slice::from_ref(&other_version)).await.unwrap();
    for number in 2..=12 {
        prompt = next(&prompt, number);
        fx.store.update_prompt(&prompt, Some(&version(&prompt, number))).await.unwrap();
    }
    for limit in [1, 5, 11, 12, 13, u32::MAX] {
        let mut seen = Vec::new();
        let mut page = PageQuery { limit, after: None };
        loop {
            let found = fx.store.list_versions(prompt.id, &page).await.unwrap();
            assert!(found.items.len() <= limit as usize);
            seen.extend(found.items);
            let Some(after) = found.next else { break };
            page.after = Some(after.to_string().parse().unwrap());
            assert!(seen.len() < 12, "a page after the last");
        }
        let expected: Vec<_> = (1..=12).rev().map(|number| version(&prompt, number)).collect();
        assert_eq!(seen, expected, "limit {limit}");
    }
}

/// Prompts come by slug, in the order of its bytes.
pub async fn prompts_are_listed_by_slug_page_by_page(fx: Fixture) {
    let mut slugs = ["b", "a", "a-b", "ab", "a1", "1", "-", "10", "2", "z-z", "b0", "b-"];
    for slug in slugs {
        let (prompt, version) = prompt(slug);
        fx.store.insert_prompt(&prompt, slice::from_ref(&version)).await.unwrap();
    }
    slugs.sort_unstable();
    for limit in [1, 5, 12, 50, u32::MAX] {
        let mut seen = Vec::new();
        let mut page = PageQuery { limit, after: None };
        loop {
            let found = fx.store.list_prompts(&page).await.unwrap();
            assert!(found.items.len() <= limit as usize);
            seen.extend(found.items.into_iter().map(|prompt| prompt.slug.to_string()));
            let Some(after) = found.next else { break };
            page.after = Some(after);
            assert!(seen.len() < slugs.len(), "a page after the last");
        }
        assert_eq!(seen, slugs, "limit {limit}");
    }
    // A cursor names a place, not a row: it works where no prompt of that slug is.
    let page = PageQuery { limit: 2, after: Some(Cursor::Prompt("a0".to_owned())) };
    let found = fx.store.list_prompts(&page).await.unwrap();
    assert_eq!(found.items[0].slug.as_str(), "a1");
}

/// A cursor of another list is refused.
pub async fn prompt_lists_refuse_a_foreign_cursor(fx: Fixture) {
    let (prompt, version) = prompt("a");
    fx.store.insert_prompt(&prompt, slice::from_ref(&version)).await.unwrap();
    let usage = Cursor::Usage(at(0), [0; 16]);
    let execution = Cursor::Execution(at(0), [0; 16]);
    for after in [usage.clone(), execution.clone(), Cursor::Version(1)] {
        let page = PageQuery { limit: 5, after: Some(after) };
        refused(fx.store.list_prompts(&page).await, ErrorKind::Invalid);
    }
    for after in [usage, execution, Cursor::Prompt("a".to_owned())] {
        let page = PageQuery { limit: 5, after: Some(after) };
        refused(fx.store.list_versions(prompt.id, &page).await, ErrorKind::Invalid);
    }
}
